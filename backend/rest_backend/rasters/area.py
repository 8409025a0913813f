"""The part of a scene that lies inside polygons, as a mask of its pixels.

A pixel belongs to the area when its centre lies inside. Polygons in another reference
system are brought into the scene's: their edges are divided until a straight line between
the reprojected points is less than a twentieth of a pixel off everywhere, then they are
placed on the scene's pixels by the inverse of its transform, rotated or not.

The mask is never held: it is drawn by :mod:`rasterio.features`, always in the same bands
of :data:`BAND` rows counted from the scene's top and as wide as the area, whatever rows or
window are asked for. So rows come out the same however they are cut.

Codes raised here besides those of :mod:`~rest_backend.rasters.vectors`, all
:class:`~rest_backend.errors.InputError`:

=================== ==========================================================
``E_AOI_CRS``         area and scene cannot be placed on each other: one of them has no
                      coordinate reference system
``E_AOI_OUTSIDE``     the area holds no pixel of the scene, or of the window
``E_WINDOW``          a window that is empty or leaves the scene
=================== ==========================================================
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import rasterize

from rest_backend.errors import CancelledError, InputError
from rest_backend.rasters.reprojection import onto_pixels
from rest_backend.rasters.scene import Scene
from rest_backend.rasters.vectors import Polygons, read_polygons
from rest_backend.rasters.windows import Window, checked_window

BAND = 64  # rows drawn in one go
LARGE = 512  # vertices from which a polygon is cut into pieces a band each
FAR = 2.0**30  # pixels: GDAL draws nothing of a polygon whose corners it cannot count


class Area:
    """Pixels of a scene inside polygons; made by :func:`read_area`.

    Attributes:
        window: The smallest (column, row, width, height) of the scene that holds them, pixels.
        pixels: How many they are.
        notes: Sentences for the user, such as what the area was reprojected from.
    """

    def __init__(self, mask: _Mask, window: Window, pixels: int, notes: tuple[str, ...]) -> None:
        self.window = window
        self.pixels = pixels
        self.notes = notes
        self._mask = mask

    def mask_rows(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Where rows of the window lie inside the area.

        Args:
            start: First row, relative to the top of :attr:`window`.
            stop: Row after the last.

        Returns:
            bool ``(stop - start, window width)``; the same however rows are cut.

        Raises:
            ValueError: Rows outside the window.
        """
        column, row, width, height = self.window
        if not 0 <= start <= stop <= height:
            raise ValueError(f"rows {start} to {stop} leave the area of {height} rows")
        return self._mask.rows(row + start, row + stop, column, width)


def read_area(
    path: str | os.PathLike[str],
    scene: Scene,
    window: Window | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Area:
    """Read the polygons of a file and place them on a scene.

    Args:
        path: A vector file; all polygons of its first layer count.
        scene: The scene, open.
        window: Only this part of the scene, (column, row, width, height) in pixels.
        cancelled: Asked while the area is read and counted whether to give up.

    Returns:
        The area.

    Raises:
        InputError: With a code of this module or of ``vectors``.
        CancelledError: ``cancelled`` said so.
    """
    column, row, width, height = checked_window(scene, window)
    polygons = read_polygons(path, cancelled)
    shapes, notes = _on_pixels(polygons, scene)
    mask = _Mask(shapes, scene.width, scene.height)
    found = mask.extent(column, row, width, height, cancelled)
    if found is None:
        what = "the scene" if (width, height) == (scene.width, scene.height) else "the chosen window"
        raise InputError(
            "E_AOI_OUTSIDE",
            f"The area holds no pixel of {what}: it lies elsewhere, or between the centres of the pixels.",
        )
    inside, pixels = found
    return Area(mask, inside, pixels, (*polygons.notes, *notes))


def _on_pixels(polygons: Polygons, scene: Scene) -> tuple[NDArray[Any], tuple[str, ...]]:
    """The polygons in the scene's pixel coordinates, and notes."""
    declared = None if polygons.assumed_crs and scene.crs is None else polygons.crs
    if scene.gcps:
        raise InputError(
            "E_AOI_CRS",
            "The scene is placed by ground control points only, so an area cannot be placed on it: "
            "rectify the scene first.",
        )
    if scene.crs is not None and scene.georeferenced:
        if declared is None:
            raise InputError(
                "E_AOI_CRS",
                "The area has no coordinate reference system, and the scene has one: set the area's "
                "(in QGIS: Layer, Set CRS) and save it again.",
            )
        shapes = onto_pixels(polygons.shapes, declared, scene)
        if declared == scene.crs:
            return shapes, ()
        return shapes, (f"The area was reprojected from {_name(declared)} to {_name(scene.crs)}.",)
    if declared is not None:
        raise InputError(
            "E_AOI_CRS",
            "The area has a coordinate reference system, and the scene has none: set the scene's, or draw "
            "the area on the scene.",
        )
    if scene.georeferenced:
        shapes = onto_pixels(polygons.shapes, None, scene)
        return shapes, ("The scene has no coordinate reference system: the area's coordinates are its own.",)
    return _pixel_coordinates(polygons.shapes, scene.height)


def _pixel_coordinates(shapes: NDArray[Any], height: int) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Areas of scenes without any georeference: rows count down from 0, or up below 0 as QGIS draws them."""
    bounds = shapely.total_bounds(shapes)
    below = min(bounds[3], height) - max(bounds[1], 0.0)
    above = min(bounds[3], 0.0) - max(bounds[1], -height)
    if above > below:
        shapes = shapely.transform(shapes, lambda points: points * (1.0, -1.0))
    return shapes, ("The scene has no georeferencing: the area's coordinates are taken as pixels.",)


class _Mask:
    """The pixels inside polygons, drawn band by band; the last band drawn is kept.

    Args:
        shapes: Polygons in pixel coordinates.
        width: Of the scene, in pixels.
        height: Of the scene, in rows.
    """

    def __init__(self, shapes: NDArray[Any], width: int, height: int) -> None:
        shapes = _without_far_corners(shapes, width, height)
        left, top, right, bottom = np.clip(
            shapely.total_bounds(shapes) if len(shapes) else np.zeros(4),
            0,
            (width, height, width, height),
        )
        # One column more on both sides: rounding at the border is not worth a thought.
        self._left = max(0, math.floor(left) - 1)
        self._width = max(0, min(width, math.ceil(right) + 1) - self._left)
        self._top, self._bottom = max(0, math.floor(top)), min(height, math.ceil(bottom))
        pieces = _in_bands(shapes, self._top // BAND, -(-self._bottom // BAND))
        bounds = shapely.bounds(pieces) if len(pieces) else np.empty((0, 4))
        order = np.argsort(bounds[:, 1], kind="stable")
        self._pieces, self._starts = pieces[order], bounds[order, 1]
        self._stops = bounds[order, 3]
        self._drawn: tuple[int, NDArray[np.bool_]] | None = None

    def rows(self, start: int, stop: int, column: int, width: int) -> NDArray[np.bool_]:
        """A window of the mask, in pixels of the scene: bool ``(stop - start, width)``."""
        result = np.zeros((stop - start, width), dtype=bool)
        left, right = max(column, self._left), min(column + width, self._left + self._width)
        if left >= right:
            return result
        for band in range(start // BAND, -(-stop // BAND)):
            low, high = max(start, band * BAND), min(stop, (band + 1) * BAND)
            if high <= self._top or low >= self._bottom:
                continue
            drawn = self._band(band)[low - band * BAND : high - band * BAND]
            result[low - start : high - start, left - column : right - column] = drawn[
                :, left - self._left : right - self._left
            ]
        return result

    def extent(
        self, column: int, row: int, width: int, height: int, cancelled: Callable[[], bool] | None
    ) -> tuple[Window, int] | None:
        """The smallest window that holds all pixels of a window, and their number; None without any."""
        pixels = 0
        columns = np.zeros(width, dtype=bool)
        first = last = -1
        for start in range(max(row, self._top // BAND * BAND), min(row + height, self._bottom), BAND):
            if cancelled is not None and cancelled():
                raise CancelledError
            stop = min(start + BAND, row + height)
            mask = self.rows(start, stop, column, width)
            found = np.flatnonzero(mask.any(axis=1))
            if not len(found):
                continue
            pixels += int(np.count_nonzero(mask))
            columns |= mask.any(axis=0)
            first = start + int(found[0]) if first < 0 else first
            last = start + int(found[-1])
        if not pixels:
            return None
        across = np.flatnonzero(columns)
        left = column + int(across[0])
        return (left, first, column + int(across[-1]) + 1 - left, last + 1 - first), pixels

    def _band(self, band: int) -> NDArray[np.bool_]:
        if self._drawn is None or self._drawn[0] != band:
            top = band * BAND
            before = int(np.searchsorted(self._starts, top + BAND))
            shapes = self._pieces[:before][self._stops[:before] > top]
            drawn = np.zeros((BAND, self._width), dtype=np.uint8)
            if len(shapes):
                rasterize(shapes, out=drawn, transform=Affine.translation(self._left, top), default_value=1)
            self._drawn = (band, drawn.view(bool))
        return self._drawn[1]


def _without_far_corners(shapes: NDArray[Any], width: int, height: int) -> NDArray[Any]:
    """The shapes, those that reach beyond :data:`FAR` cut one pixel around the scene."""
    far = (np.abs(shapely.bounds(shapes)) > FAR).any(axis=1)
    if not far.any():
        return shapes
    cut = shapely.get_parts(shapely.clip_by_rect(shapes[far], -1, -1, width + 1, height + 1))
    result: NDArray[Any] = np.concatenate([shapes[~far], cut[shapely.get_type_id(cut) == 3]])
    return result


def _in_bands(shapes: NDArray[Any], first: int, stop: int) -> NDArray[Any]:
    """The shapes, those with many vertices cut along bands so that no band draws all of them again.

    Cuts lie one row outside of the band they are for: no new edge is ever drawn.
    """
    many = shapely.get_num_coordinates(shapes) > LARGE
    done = [shapes[~many]]
    waiting = [(shape, first, stop) for shape in shapes[many]]
    while waiting:
        shape, low, high = waiting.pop()
        if shape.is_empty:
            continue
        if high - low <= 1 or shapely.get_num_coordinates(shape) <= LARGE:
            done.append(np.array([shape], dtype=object))
            continue
        middle = (low + high) // 2
        left, _, right, _ = shape.bounds
        for begin, end in ((low, middle), (middle, high)):
            part = shapely.clip_by_rect(shape, left - 1, begin * BAND - 1, right + 1, end * BAND + 1)
            waiting.append((part, begin, end))
    pieces = shapely.get_parts(np.concatenate(done))
    kept: NDArray[Any] = pieces[shapely.get_type_id(pieces) == 3]
    return kept


def _name(crs: Any) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else "a system of its own"
