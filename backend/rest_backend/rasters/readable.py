"""What everything that is read like a scene has: a grid, and windows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

Present = NDArray[np.bool_] | None


class ReadableScene(ABC):
    """A grid of pixels with bands, read by windows.

    Attributes:
        path: Absolute path of the file.
        files: Every file it is read from.
        width: Pixels in a row.
        height: Rows.
        count: Number of bands chosen.
        bands: Their 1-based numbers in the file.
        transform: Pixel to map.
        georeferenced: Whether the file has a transform.
        crs: Coordinate reference system (a rasterio CRS) or None.
        dtypes: Stored type of each chosen band.
        band_names: Description of each chosen band, ``Band N`` without one.
        nodata: Nodata value of each chosen band as stored, None without one.
        masked: Whether anything in the file can make a pixel invalid.
        scales: What each chosen band's stored values are multiplied with, 1 where none is declared.
        offsets: What is added then, 0 where none is declared.
        notes: Sentences for the user about this scene.
        cache_bytes: Size of GDAL's block cache while the scene is open.
        held_bytes: What reading holds beside that and the rows it returns.
    """

    path: Path
    files: tuple[Path, ...]
    width: int
    height: int
    count: int
    bands: tuple[int, ...]
    transform: Affine
    georeferenced: bool
    crs: Any
    dtypes: tuple[str, ...]
    band_names: tuple[str, ...]
    nodata: tuple[float | None, ...]
    masked: bool
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    notes: list[str]
    cache_bytes: int
    held_bytes: int = 0

    @abstractmethod
    def check_unchanged(self) -> None:
        """Compare size, time and identity of the scene's files with those at opening.

        Statistics and overviews beside them do not count: QGIS writes them whenever it likes.

        Raises:
            InputError: ``E_SCENE_CHANGED``.
        """

    def read(
        self, row: int, height: int, column: int = 0, width: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Read a window.

        Args:
            row: First row, from 0.
            height: Rows, in pixels.
            column: First column, from 0.
            width: Columns, in pixels; None up to the right edge.

        Returns:
            ``(values, valid)``: float32 ``(count, height, width)``, 0 in invalid
            pixels; bool ``(height, width)``.

        Raises:
            ValueError: A window that is empty or leaves the scene.
            InputError: ``E_SCENE_DAMAGED``, or ``E_SCENE_CHANGED`` where that explains it.
        """
        values, valid, _ = self.read_present(row, height, column, width)
        return values, valid

    def read_present(
        self, row: int, height: int, column: int = 0, width: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Present]:
        """Read a window and, for each band, where it holds a measurement.

        Args:
            row: First row, from 0.
            height: Rows, in pixels.
            column: First column, from 0.
            width: Columns, in pixels; None up to the right edge.

        Returns:
            ``(values, valid, present)``: the first two as :meth:`read`; ``present``
            is bool ``(count, height, width)``, or None where every band of every
            valid pixel is present.

        Raises:
            ValueError: A window that is empty or leaves the scene.
            InputError: ``E_SCENE_DAMAGED``, or ``E_SCENE_CHANGED`` where that explains it.
        """
        if width is None:
            width = self.width - column
        if not (0 <= row < row + height <= self.height and 0 <= column < column + width <= self.width):
            raise ValueError(
                f"window column {column}, row {row}, {width} x {height} leaves the scene of "
                f"{self.width} x {self.height} pixels"
            )
        return self._read_window(row, height, column, width)

    @abstractmethod
    def _read_window(
        self, row: int, height: int, column: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], Present]:
        """As :meth:`read_present`, for a window that is inside the scene."""
