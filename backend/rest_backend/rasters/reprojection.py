"""Placing polygons of any reference system on a scene's pixels.

What lies far from the scene is cut off first, in the polygons' own system: a polygon of a
whole country, or of the world, has corners that the scene's projection does not know.
Then every edge is divided until its reprojected points lie on a straight line between its
reprojected ends, to within :data:`TOLERANCE` pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine, TransformNotInvertibleError
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # GDAL's own errors have no public name
from rasterio.errors import RasterioError
from rasterio.warp import transform as transform_points

from rest_backend.errors import InputError
from rest_backend.rasters.scene import Scene

TOLERANCE = 0.05  # pixels an edge may be off
MAXIMUM_HALVINGS = 20  # of one edge
MAXIMUM_POINTS = 8_000_000  # of all polygons after division
_GRID = 33  # points across the scene by which its place in another system is found
_MARGIN = 0.1  # of the scene's size, cut wider than the scene


def onto_pixels(shapes: NDArray[Any], crs: Any, scene: Scene) -> NDArray[Any]:
    """Polygons in pixel coordinates of a scene: x is columns, y is rows, 0, 0 the top left corner.

    Args:
        shapes: Valid shapely polygons ``(count,)``.
        crs: Their reference system (a rasterio CRS); None is the scene's own.
        scene: A scene with a transform.

    Returns:
        Polygons ``(parts,)``; what lies far outside the scene may be missing.

    Raises:
        InputError: ``E_AOI_CRS``, where the systems cannot be brought together.
    """
    try:
        to_pixel = ~scene.transform
    except TransformNotInvertibleError as error:
        raise InputError(
            "E_AOI_CRS", "The scene's georeferencing places all its pixels on one line."
        ) from error
    if crs is None or crs == scene.crs:
        return _moved(shapes, lambda points: _affine(to_pixel, points))

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return _affine(to_pixel, _reproject(crs, scene.crs, points))

    near = _near(shapes, crs, scene)
    if not len(near):
        return near
    divided = _divided(near, project, (scene.width, scene.height))
    moved = _moved(divided, project)
    if not np.isfinite(shapely.bounds(moved)).all():
        raise InputError(
            "E_AOI_CRS",
            "Parts of the area cannot be brought into the scene's coordinate reference system: draw the area "
            "nearer to the scene.",
        )
    return moved


def _moved(shapes: NDArray[Any], change: Any) -> NDArray[Any]:
    moved: NDArray[Any] = shapely.transform(shapes, change)
    return moved


def _affine(transform: Affine, points: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b, c, d, e, f = transform[:6]
    x, y = points[:, 0], points[:, 1]
    return np.column_stack([a * x + b * y + c, d * x + e * y + f])


def _reproject(source: Any, target: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in another system, infinite where it does not know them."""
    if not len(points):
        return points
    try:
        with rasterio.Env(CPL_DEBUG=False):
            x, y = transform_points(source, target, points[:, 0], points[:, 1])
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(
            "E_AOI_CRS",
            f"The area cannot be brought into the scene's coordinate reference system ({error}).",
        ) from error
    return np.column_stack([x, y])


def _near(shapes: NDArray[Any], crs: Any, scene: Scene) -> NDArray[Any]:
    """The parts of the polygons around the scene, in their own system."""
    across, down = np.meshgrid(np.linspace(0, scene.width, _GRID), np.linspace(0, scene.height, _GRID))
    points = _affine(scene.transform, np.column_stack([across.ravel(), down.ravel()]))
    placed = _reproject(scene.crs, crs, points)
    if not np.isfinite(placed).all():
        return shapes
    low, high = placed.min(axis=0), placed.max(axis=0)
    margin = _MARGIN * (high - low)
    (left, bottom), (right, top) = low - margin, high + margin
    bounds = shapely.bounds(shapes)
    beyond = (bounds[:, 0] < left) | (bounds[:, 1] < bottom) | (bounds[:, 2] > right) | (bounds[:, 3] > top)
    away = (bounds[:, 0] > right) | (bounds[:, 1] > top) | (bounds[:, 2] < left) | (bounds[:, 3] < bottom)
    cut = shapely.get_parts(
        shapely.intersection(shapes[beyond & ~away], shapely.box(left, bottom, right, top))
    )
    cut = shapely.get_parts(cut)  # of collections, where a polygon also touches the box
    cut = cut[(shapely.get_type_id(cut) == 3) & ~shapely.is_empty(cut)]
    result: NDArray[Any] = np.concatenate([shapes[~beyond & ~away], cut])
    return result


def _divided(shapes: NDArray[Any], project: Any, size: tuple[int, int]) -> NDArray[Any]:
    """The polygons with points added on their edges, in their own system."""
    rings, owner = shapely.get_rings(shapes, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    begin = np.flatnonzero(ring[1:] == ring[:-1])  # edges of a ring, not from one to the next
    edges, edge_ring = np.stack([points[begin], points[begin + 1]], axis=1), ring[begin]
    # Position of an edge among all, as a fraction, so that pieces sort into their places.
    place = np.arange(len(edges), dtype=np.float64)
    share = np.ones(len(edges))
    done: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    total = 0
    for halving in range(MAXIMUM_HALVINGS + 1):
        bent = _bent(edges, project, size)
        if halving == MAXIMUM_HALVINGS or total + 2 * np.count_nonzero(bent) > MAXIMUM_POINTS:
            bent[:] = False
        straight = ~bent
        done.append((edges[straight, 0], edge_ring[straight], place[straight]))
        total += int(np.count_nonzero(straight))
        if not bent.any():
            break
        start, end = edges[bent, 0], edges[bent, 1]
        middle = (start + end) / 2
        half = share[bent] / 2
        edges = np.concatenate([np.stack([start, middle], axis=1), np.stack([middle, end], axis=1)])
        edge_ring = np.tile(edge_ring[bent], 2)
        place = np.concatenate([place[bent], place[bent] + half])
        share = np.tile(half, 2)
    starts, of_ring, where = (np.concatenate(parts) for parts in zip(*done, strict=True))
    order = np.argsort(where, kind="stable")
    divided = shapely.linearrings(starts[order], indices=of_ring[order])
    return np.array(
        [
            shapely.polygons(own[0], own[1:] if len(own) > 1 else None)
            for own in np.split(divided, np.flatnonzero(np.diff(owner)) + 1)
        ],
        dtype=object,
    )


def _bent(edges: NDArray[np.float64], project: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which edges near the scene are curves on its pixels."""
    if not len(edges):
        return np.zeros(0, dtype=bool)
    start, end = edges[:, 0], edges[:, 1]
    samples = np.stack([start + (end - start) * share for share in (0, 0.25, 0.5, 0.75, 1)], axis=1)
    placed = project(samples.reshape(-1, 2)).reshape(samples.shape)
    known = np.isfinite(placed).all(axis=(1, 2))
    placed = np.where(known[:, None, None], placed, 0.0)
    chord = placed[:, 4] - placed[:, 0]
    length = np.hypot(chord[:, 0], chord[:, 1])
    inner = placed[:, 1:4] - placed[:, :1]
    across = np.abs(inner[:, :, 0] * chord[:, None, 1] - inner[:, :, 1] * chord[:, None, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.where(length[:, None] > 0, across / length[:, None], np.hypot(inner[..., 0], inner[..., 1]))
    off = off.max(axis=1)
    low, high = placed.min(axis=1) - off[:, None], placed.max(axis=1) + off[:, None]
    near = ((high >= 0) & (low <= size)).all(axis=1)
    result: NDArray[np.bool_] = known & near & (off > TOLERANCE)
    return result
