"""The file behind a live layer: raw class rows and a VRT that describes them.

A VRT over a flat raw file is the quickest source QGIS can read again and again
while it grows. Everything here runs on the client's thread, never on QGIS's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from osgeo import gdal

NODATA = 255
_FILL = bytes([NODATA]) * (4 * 1024 * 1024)


class MapClass(Protocol):
    """One class of a class map: its id (0-254), its name, its colour ``#rrggbb``."""

    id: int
    name: str
    color: str


class LiveRaster:
    """A class map on disk that is complete from the start and fills in by rows.

    Attributes:
        path: The VRT, what a layer opens.
        rows_written: Number of row blocks written so far; grows only.
    """

    def __init__(
        self,
        path: Path,
        scene: str,
        classes: Sequence[MapClass],
        window: tuple[int, int, int, int] | None = None,
    ) -> None:
        """Describe the raster; nothing is written before :meth:`create`.

        Args:
            path: Where the VRT goes; the raw file lies beside it.
            scene: File whose grid and coordinate system the map shares.
            classes: The map's classes.
            window: Column, row, width and height in the scene's pixels; None is all of it.
        """
        self.path = path
        self.rows_written = 0
        self._raw_path = path.with_suffix(".raw")
        self._scene = scene
        self._classes = classes
        self._window = window
        self._raw: BinaryIO | None = None

    def create(self) -> None:
        """Write both files: every pixel nodata.

        Raises:
            OSError: The scene cannot be opened, or the folder cannot be written.
        """
        try:
            scene = gdal.Open(self._scene)
            if scene is None:
                raise OSError(f"{self._scene} cannot be opened as a raster")
            window = self._window or (0, 0, scene.RasterXSize, scene.RasterYSize)
            self._window = window
            self._fill_raw(window[2] * window[3])
            self._describe(scene, window)
            self._raw = self._raw_path.open("r+b", buffering=0)
        except OSError:
            self.discard()
            raise
        except RuntimeError as error:  # GDAL's, where another plugin has switched its exceptions on
            self.discard()
            raise OSError(str(error)) from error

    def write(self, window: tuple[int, int, int, int], values: bytes) -> None:
        """Put finished rows in their place.

        Args:
            window: Column, row, width and height in the scene's pixels.
            values: uint8, ``height * width`` class ids row by row.

        Raises:
            ValueError: The rows lie outside the map or are not as long as they say.
            OSError: The disk is full.
        """
        if self._raw is None or self._window is None:
            raise ValueError("the live raster is closed")
        column, row, width, height = window
        left, top, map_width, map_height = self._window
        column, row = column - left, row - top
        if len(values) != width * height:
            raise ValueError(f"{len(values)} bytes of rows for a window of {width} x {height} pixels")
        if column < 0 or row < 0 or column + width > map_width or row + height > map_height:
            raise ValueError(f"rows of {window} lie outside the map's window {self._window}")
        if width == map_width:
            _write_at(self._raw, row * map_width, values)
        else:
            for line in range(height):
                start = line * width
                _write_at(self._raw, (row + line) * map_width + column, values[start:start + width])
        self.rows_written += 1

    def close(self) -> None:
        """Let go of the raw file; layers may go on reading it."""
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def discard(self) -> None:
        """Delete both files. Where a reader still holds one (Windows), it stays in the temporary folder."""
        self.close()
        for path in (self.path, self._raw_path, Path(f"{self.path}.aux.xml")):
            with suppress(OSError):
                path.unlink()

    def _fill_raw(self, missing: int) -> None:
        # Written out in full: a sparse file reads as class 0, not as nodata.
        with self._raw_path.open("wb", buffering=0) as raw:
            while missing:
                missing -= raw.write(_FILL[: min(missing, len(_FILL))])

    def _describe(self, scene: gdal.Dataset, window: tuple[int, int, int, int]) -> None:
        left, top, width, height = window
        description = gdal.GetDriverByName("VRT").Create(str(self.path), width, height, 0)
        if description is None:
            raise OSError(f"{self.path} cannot be written")
        description.AddBand(
            gdal.GDT_Byte,
            [
                "subClass=VRTRawRasterBand",
                f"SourceFilename={self._raw_path.name}",
                "relativeToVRT=true",
                "PixelOffset=1",
                f"LineOffset={width}",
            ],
        )
        transform = scene.GetGeoTransform(can_return_null=True)
        if transform is not None:
            x, y = gdal.ApplyGeoTransform(transform, left, top)
            description.SetGeoTransform((x, *transform[1:3], y, *transform[4:6]))
        if scene.GetSpatialRef() is not None:
            description.SetSpatialRef(scene.GetSpatialRef())

        band = description.GetRasterBand(1)
        colors = gdal.ColorTable()
        names = [""] * (max((entry.id for entry in self._classes), default=-1) + 1)
        for entry in self._classes:
            red, green, blue = bytes.fromhex(entry.color.lstrip("#"))
            colors.SetColorEntry(entry.id, (red, green, blue, 255))
            names[entry.id] = entry.name
        band.SetNoDataValue(NODATA)
        band.SetColorTable(colors)
        band.SetColorInterpretation(gdal.GCI_PaletteIndex)
        band.SetCategoryNames(names)
        description.FlushCache()


def _write_at(raw: BinaryIO, offset: int, values: bytes) -> None:
    raw.seek(offset)
    view = memoryview(values)
    while view:
        view = view[raw.write(view):]
