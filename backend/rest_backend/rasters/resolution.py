"""How large a scene's pixels are on the ground, whatever its reference system."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # GDAL's own errors have no public name
from rasterio.errors import CRSError, RasterioError, TransformError
from rasterio.transform import from_gcps
from rasterio.warp import transform as transform_points

from rest_backend.rasters.scene import Scene

# WGS 84 (NGA.STND.0036): semi-major axis in metres, first eccentricity squared.
_AXIS = 6_378_137.0
_ECCENTRICITY = 6.694379990141e-3


def ground_resolution(scene: Scene) -> float | None:
    """Metres on the ground along a pixel's side, at the scene's centre.

    Measured on the ellipsoid, so pixels of Web Mercator, of degrees or of feet are told in
    true metres. Of pixels that are not square it is the side of a square of their area.

    Args:
        scene: An open scene.

    Returns:
        Metres a pixel; None where the scene lies nowhere, or where its reference system
        does not tell.
    """
    transform, crs = _placing(scene)
    if transform is None or crs is None:
        return None
    column, row = scene.width / 2, scene.height / 2
    corners = np.array([[column, row], [column + 1, row], [column, row + 1]])
    a, b, c, d, e, f = transform[:6]
    x = a * corners[:, 0] + b * corners[:, 1] + c
    y = d * corners[:, 0] + e * corners[:, 1] + f
    places = _on_the_ellipsoid(crs, x, y)
    if places is None:
        return None
    area = float(np.linalg.norm(np.cross(places[1] - places[0], places[2] - places[0])))
    return math.sqrt(area) if math.isfinite(area) and area > 0 else None


def _placing(scene: Scene) -> tuple[Affine | None, Any]:
    if scene.georeferenced:
        return scene.transform, scene.crs
    if len(scene.gcps) >= 3:
        try:
            return from_gcps(scene.gcps), scene.gcp_crs
        except (TransformError, RasterioError, CPLE_BaseError):
            return None, None
    return None, None


def _on_the_ellipsoid(crs: Any, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Geocentric coordinates in metres, ``(points, 3)``: they know neither poles nor a date line.

    None where the system does not reach, or has no place on the earth (a building site's, another planet's).
    """
    try:
        with rasterio.Env():
            longitude, latitude = np.radians(transform_points(crs, "EPSG:4326", x, y))
    except (CRSError, RasterioError, CPLE_BaseError):
        return None
    if not (np.isfinite(longitude).all() and np.isfinite(latitude).all()):
        return None
    normal = _AXIS / np.sqrt(1 - _ECCENTRICITY * np.sin(latitude) ** 2)
    return np.column_stack(
        [
            normal * np.cos(latitude) * np.cos(longitude),
            normal * np.cos(latitude) * np.sin(longitude),
            normal * (1 - _ECCENTRICITY) * np.sin(latitude),
        ]
    )
