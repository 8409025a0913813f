"""The file behind a live layer: raw rows of classes or scores, and a VRT that describes them.

A VRT over a flat raw file is the quickest source QGIS can read again and again
while it grows. Nothing here runs on QGIS's main thread: rows are written on the
client's, and the raw file is filled with nodata on a thread of its own, because
gigabytes take seconds, in which the client must go on listening.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from osgeo import gdal, osr

NODATA = 255
FULL_SCORE = 254  # what stands for 1
SPARE_BYTES = 500_000_000  # of the disk that a live raster leaves to everybody else
_FILL = bytes([NODATA]) * (4 * 1024 * 1024)


class MapClass(Protocol):
    """One class of a class map: its id (0-254), its name, its colour ``#rrggbb``."""

    id: int
    name: str
    color: str


class LiveRaster:
    """A map on disk that is complete as soon as it can be opened and fills in by rows.

    :meth:`create`, then :meth:`fill` on a thread of its own, at the end of which
    the VRT appears; :meth:`write` may be called from :meth:`create` on.

    Attributes:
        path: The VRT, what a layer opens.
        rows_written: Number of row blocks written so far; grows only.
    """

    def __init__(
        self,
        path: Path,
        scene: str,
        classes: Sequence[MapClass] | None,
        window: tuple[int, int, int, int] | None = None,
        style: str = "",
    ) -> None:
        """Describe the raster; nothing is written before :meth:`create`.

        Args:
            path: Where the VRT goes; the raw file lies beside it.
            scene: File whose grid and coordinate system the map shares.
            classes: The map's classes; None for scores, where 0 to 254 stand for 0 to 1.
            window: Column, row, width and height in the scene's pixels; None is all of it, a height of 0
                all rows down to the scene's last.
            style: A style to lie beside the VRT, for QGIS to load with it: without one it measures the
                values of scores first, which takes a while.
        """
        self.path = path
        self.rows_written = 0
        self._raw_path = path.with_suffix(".raw")
        self._scene = scene
        self._classes = classes
        self._window = window
        self._style = style
        self._style_path = path.with_suffix(".qml")
        self._transform: tuple[float, ...] | None = None
        self._reference: osr.SpatialReference | None = None
        self._raw: BinaryIO | None = None
        self._initialised = 0  # bytes from the start of the raw file that were written
        self._lock = threading.Lock()  # of the last two and both files

    def create(self) -> None:
        """Open the raw file for rows, still empty; quick.

        Raises:
            OSError: The scene cannot be opened, the folder cannot be written, or its disk has no room.
        """
        try:
            scene = gdal.Open(self._scene)
            if scene is None:
                raise OSError(f"{self._scene} cannot be opened as a raster")
            left, top, width, height = self._window or (0, 0, scene.RasterXSize, scene.RasterYSize)
            self._window = (left, top, width, height or scene.RasterYSize - top)
            self._transform = scene.GetGeoTransform(can_return_null=True)
            self._reference = scene.GetSpatialRef()
            size = self._window[2] * self._window[3]
            free = shutil.disk_usage(self.path.parent).free
            if free < size + SPARE_BYTES:
                raise OSError(
                    f"{self.path.parent} has {free / 1e9:.1f} GB of room, the preview takes {size / 1e9:.1f} "
                    f"and leaves {SPARE_BYTES / 1e9:.1f} to others"
                )
            self._raw = self._raw_path.open("w+b", buffering=0)
        except OSError:
            self.discard()
            raise
        except RuntimeError as error:  # GDAL's, where another plugin has switched its exceptions on
            self.discard()
            raise OSError(str(error)) from error

    def fill(self) -> bool:
        """Write nodata wherever no rows were written yet, then the VRT.

        Returns:
            Whether the raster is whole: False where it was closed meanwhile.

        Raises:
            OSError: The disk is full.
        """
        while True:
            # A piece at a time, so that rows never wait for long.
            with self._lock:
                if self._raw is None or self._window is None:
                    return False
                size = self._window[2] * self._window[3]
                self._fill_to(min(size, self._initialised + len(_FILL)))
                if self._initialised == size:
                    self._describe(self._window)
                    return True
            time.sleep(0.001)  # else this thread would have the lock again before the one that waits

    def write(self, window: tuple[int, int, int, int], values: bytes) -> None:
        """Put finished rows in their place.

        Args:
            window: Column, row, width and height in the scene's pixels.
            values: uint8, ``height * width`` class ids or scores row by row.

        Raises:
            ValueError: The rows lie outside the map or are not as long as they say.
            OSError: The disk is full.
        """
        with self._lock:
            self._write(window, values)

    def close(self) -> None:
        """Let go of the raw file, and end the filling; layers may go on reading it."""
        with self._lock:
            if self._raw is not None:
                self._raw.close()
                self._raw = None

    def discard(self) -> None:
        """Delete its files. Where a reader still holds one (Windows), it stays for a week."""
        self.close()
        for path in (self.path, self._raw_path, self._style_path, Path(f"{self.path}.aux.xml")):
            with suppress(OSError):
                path.unlink()

    def _write(self, window: tuple[int, int, int, int], values: bytes) -> None:
        if self._raw is None or self._window is None:
            raise ValueError("the live raster is closed")
        column, row, width, height = window
        left, top, map_width, map_height = self._window
        column, row = column - left, row - top
        if len(values) != width * height:
            raise ValueError(f"{len(values)} bytes of rows for a window of {width} x {height} pixels")
        if column < 0 or row < 0 or column + width > map_width or row + height > map_height:
            raise ValueError(f"rows of {window} lie outside the map's window {self._window}")
        end = (row + height) * map_width
        # Where these rows are ahead of the filling, nothing before or beside them may stay unwritten.
        self._fill_to(row * map_width if width == map_width else end)
        if width == map_width:
            _write_at(self._raw, row * map_width, values)
        else:
            for line in range(height):
                start = line * width
                _write_at(self._raw, (row + line) * map_width + column, values[start : start + width])
        self._initialised = max(self._initialised, end)
        self.rows_written += 1

    def _fill_to(self, end: int) -> None:
        # Written out in full: a sparse file reads as class 0, not as nodata.
        while self._raw is not None and self._initialised < end:
            piece = min(end - self._initialised, len(_FILL))
            _write_at(self._raw, self._initialised, _FILL[:piece])
            self._initialised += piece

    def _describe(self, window: tuple[int, int, int, int]) -> None:
        try:
            if self._style:
                shutil.copyfile(self._style, self._style_path)
            self._write_vrt(window)
        except RuntimeError as error:  # GDAL's, where another plugin has switched its exceptions on
            raise OSError(str(error)) from error

    def _write_vrt(self, window: tuple[int, int, int, int]) -> None:
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
        transform = self._transform
        if transform is not None:
            x, y = gdal.ApplyGeoTransform(transform, left, top)
            description.SetGeoTransform((x, *transform[1:3], y, *transform[4:6]))
        if self._reference is not None:
            description.SetSpatialRef(self._reference)

        band = description.GetRasterBand(1)
        band.SetNoDataValue(NODATA)
        if self._classes is None:
            band.SetScale(1 / FULL_SCORE)
        else:
            _name_classes(band, self._classes)
        description.FlushCache()


def _name_classes(band: gdal.Band, classes: Sequence[MapClass]) -> None:
    colors = gdal.ColorTable()
    names = [""] * (max((entry.id for entry in classes), default=-1) + 1)
    for entry in classes:
        red, green, blue = bytes.fromhex(entry.color.lstrip("#"))
        colors.SetColorEntry(entry.id, (red, green, blue, 255))
        names[entry.id] = entry.name
    band.SetColorTable(colors)
    band.SetColorInterpretation(gdal.GCI_PaletteIndex)
    band.SetCategoryNames(names)


def _write_at(raw: BinaryIO, offset: int, values: bytes) -> None:
    raw.seek(offset)
    view = memoryview(values)
    while view:
        view = view[raw.write(view) :]
