"""Where a window of a scene lies on the map.

A whole scene keeps its transform bit for bit. A window's is shifted by whole pixels,
computed as GDAL does: ``c + column * a + row * b`` and ``f + column * d + row * e``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from rest_backend.rasters.scene import Scene


@dataclass(frozen=True)
class Georeference:
    """The georeferencing of a window; None or empty is what the scene has none of.

    Attributes:
        transform: Pixel of the window to map.
        crs: Coordinate reference system (a rasterio CRS).
        gcps: Ground control points (rasterio objects).
        gcp_crs: The control points' reference system.
        rpcs: Rational polynomial coefficients (a rasterio RPC).
    """

    transform: Affine | None
    crs: Any
    gcps: tuple[Any, ...]
    gcp_crs: Any
    rpcs: Any


def shifted_georeference(scene: Scene, column: int, row: int) -> Georeference:
    """The georeferencing of the part of a scene that begins at a pixel.

    Args:
        scene: The scene.
        column: First column of the window, from 0.
        row: First row of the window, from 0.

    Returns:
        The scene's own georeferencing when both are 0.
    """
    transform = scene.transform if scene.georeferenced else None
    rpcs = scene.rpcs
    gcps = scene.gcps
    if column or row:
        if transform is not None:
            a, b, c, d, e, f = transform[:6]
            transform = Affine(a, b, c + column * a + row * b, d, e, f + column * d + row * e)
        gcps = tuple(
            GroundControlPoint(
                row=point.row - row,
                col=point.col - column,
                x=point.x,
                y=point.y,
                z=point.z,
                id=point.id,
                info=point.info,
            )
            for point in gcps
        )
        if rpcs is not None:
            fields = rpcs.to_dict()
            fields["line_off"] -= row
            fields["samp_off"] -= column
            rpcs = RPC(**fields)
    return Georeference(transform, scene.crs, gcps, scene.gcp_crs, rpcs)
