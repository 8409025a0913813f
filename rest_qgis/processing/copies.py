"""Layers that are no file: a copy of them that the daemon can open.

Rasters in memory, in archives and behind databases are copied in their own pixels.
A rendered map (WMS, XYZ) has neither pixels nor an end of its own: it is drawn
at a ground resolution, for an area and some pixels around it.

What is read comes through QGIS's own data provider, or from the source that provider
names, on a thread of its own. A source that does not answer is therefore left
behind, whatever it waits for.
"""

from __future__ import annotations

import math
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from osgeo import gdal, osr
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsDistanceArea,
    QgsMapLayer,
    QgsPointXY,
    QgsProject,
    QgsProviderRegistry,
    QgsRasterBlockFeedback,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QCoreApplication, QThread
from qgis.PyQt.QtGui import QImage

from rest_qgis.processing.errors import RunError, SceneError
from rest_qgis.processing.scene import Placement, checked_raster, pixel_window

STALL_SECONDS = 60.0  # without a block, before a source is given up
CONTEXT_PIXELS = 256  # around an area, for the network to see
PIXEL_LIMIT = 2_000_000_000  # of one copy
SPARE_BYTES = 500_000_000  # of the disk that a copy leaves to everybody else
_POLL_SECONDS = 0.1
_LEAVE_SECONDS = 5.0  # for a reader that was told to end
_TILE = 512  # pixels read at once, and the copy's tiles
_OPTIONS = ["TILED=YES", f"BLOCKXSIZE={_TILE}", f"BLOCKYSIZE={_TILE}", "BIGTIFF=IF_SAFER"]
_CALCULATOR_NODATA = -3.4028234663852886e38  # the least float32
_NETWORK = ("/vsicurl", "/vsis3", "/vsigs", "/vsiaz", "/vsiadls", "/vsioss", "/vsiswift", "http")


class Copied(NamedTuple):
    """A finished copy: where it lies, and what the user should know of it."""

    placement: Placement
    notes: tuple[str, ...]


class LayerCopy:
    """One raster layer about to be copied; made on the layer's thread, written on any.

    Attributes:
        resolution: Metres of ground a pixel of a rendered map shall cover; may be set until
            :meth:`write`. Other layers keep their own pixels.
    """

    def __init__(
        self,
        layer: QgsMapLayer | None,
        area: QgsRectangle | None = None,
        resolution: float = 0.0,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """Take what is needed of the layer.

        Args:
            layer: A raster layer that :func:`~rest_qgis.processing.scene.needs_copy`.
            area: The box to copy, in the layer's coordinate system; None is all of it.
            resolution: See above; 0: unknown yet.
            stall_seconds: A source that gives nothing for so long is given up.

        Raises:
            SceneError: ``E_LAYER``, or ``E_AREA_NEEDED`` for a rendered map without an area.
        """
        raster = checked_raster(layer)
        self.resolution = resolution
        self._name = raster.name()
        self._crs = raster.crs()
        self._transform_context = QgsProject.instance().transformContext()
        self._area = area
        self._stall_seconds = stall_seconds
        provider = raster.dataProvider()
        self._crs_of_source = provider.crs()
        self._rendered = _is_rendered(provider)
        # QGIS's raster calculator marks what is missing, and its virtual layers do not say with what.
        self._undeclared = _CALCULATOR_NODATA if raster.providerType() == "virtualraster" else None
        if self._rendered and area is None:
            message = _tr("“{0}” has no end: choose an area, such as the canvas extent.")
            raise SceneError("E_AREA_NEEDED", message.format(self._name))
        # With the user and password of its authentication; asking for them is the main thread's business.
        self._uri = provider.dataSourceUri(True) if raster.providerType() == "gdal" else ""
        self._secret = self._uri != provider.dataSourceUri()
        self._provider = None
        if not self._uri:
            self._provider = provider.clone()
            self._provider.moveToThread(None)  # for the thread that will read

    @property
    def rendered(self) -> bool:
        """Whether it is a map drawn on request, which needs :attr:`resolution`."""
        return self._rendered

    def write(self, path: Path, feedback: Any) -> Copied:
        """Copy, once; waits on the caller's thread, which is any but one that must stay responsive.

        Args:
            path: The GeoTIFF to write, complete or not at all.
            feedback: A ``QgsFeedback`` or ``QgsTask``: told the progress in percent, and looked at for
                a cancel ten times a second.

        Raises:
            SceneError: ``E_AREA``, ``E_RESOLUTION_NEEDED``, ``E_COPY_TOO_LARGE``, ``E_DISK``,
                ``E_SOURCE``, ``E_SOURCE_STALLED`` or ``E_COPY``.
            RunError: ``E_CANCELLED``.
        """
        read = self._copy_file if self._uri else self._copy_blocks
        reader = _Reader(read, path)
        reader.start()
        while reader.is_alive():
            reader.join(_POLL_SECONDS)
            feedback.setProgress(100.0 * reader.share)
            if feedback.isCanceled():
                reader.leave()
                raise RunError(
                    "E_CANCELLED", _tr("Cancelled while “{0}” was being copied.").format(self._name)
                )
            if reader.is_alive() and reader.silent_seconds() > self._stall_seconds:
                reader.leave()
                message = _tr(
                    "The source of “{0}” gave nothing for {1} seconds. Check the connection and try again."
                )
                raise SceneError("E_SOURCE_STALLED", message.format(self._name, f"{self._stall_seconds:g}"))
        if reader.error is not None:
            raise reader.error
        return Copied(Placement(str(path), self._crs, self._crs), tuple(reader.notes))

    # --- on the reader's thread -----------------------------------------------------------

    def _copy_file(self, reader: _Reader) -> None:
        """Have GDAL copy what QGIS reads with GDAL: types, nodata, names, scales and masks stay."""
        options = QgsProviderRegistry.instance().decodeUri("gdal", self._uri).get("openOptions") or []
        gdal.ErrorReset()
        source = gdal.OpenEx(self._uri.split("|option:")[0], gdal.OF_RASTER, open_options=options)
        if source is None:
            raise self._no_source("" if self._secret else gdal.GetLastErrorMsg())
        window = (0, 0, source.RasterXSize, source.RasterYSize)
        if self._area is not None and any(part in self._uri for part in _NETWORK):
            transform = source.GetGeoTransform(can_return_null=True) or (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
            window = _with_context(pixel_window(transform, *window[2:], self._area), *window[2:])
            self._note_part(reader, window, source.RasterXSize, source.RasterYSize)
        kinds = [source.GetRasterBand(number + 1).DataType for number in range(source.RasterCount)]
        self._check_size(reader, window[2], window[3], kinds)

        def told(share: float, _message: str, _data: Any) -> int:
            reader.heard(share)
            return 0 if reader.leaving else 1

        corrected = self._crs.isValid() and self._crs != self._crs_of_source
        gdal.SetThreadLocalConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
        copied = gdal.Translate(
            str(reader.path),
            source,
            format="GTiff",
            srcWin=window,
            creationOptions=_OPTIONS,
            outputSRS=_wkt(self._crs) if corrected else None,
            callback=told,
        )
        if copied is None:
            raise self._no_source("" if self._secret else gdal.GetLastErrorMsg())

    def _copy_blocks(self, reader: _Reader) -> None:
        """Have QGIS's data provider read block by block, as it does to draw."""
        self._provider.moveToThread(QThread.currentThread())
        try:
            self._read_blocks(reader)
        finally:
            self._provider = None  # destroyed here, on the thread it lives on

    def _read_blocks(self, reader: _Reader) -> None:
        provider = self._provider
        grid = self._drawn_grid() if self._rendered else self._own_grid(reader)
        bands = range(1, 2 if self._rendered else provider.bandCount() + 1)
        kinds = [gdal.GDT_Byte] * 4 if self._rendered else [_gdal_type(provider.dataType(n)) for n in bands]
        self._check_size(reader, grid.width, grid.height, kinds)
        target = gdal.GetDriverByName("GTiff").Create(
            str(reader.path),
            grid.width,
            grid.height,
            len(kinds),
            _common_type(kinds),
            [*_OPTIONS, *(("PHOTOMETRIC=RGB", "ALPHA=YES") if self._rendered else ())],
        )
        if target is None:
            raise OSError(gdal.GetLastErrorMsg() or str(reader.path))
        target.SetGeoTransform((grid.left, grid.x_size, 0.0, grid.top, 0.0, -grid.y_size))
        if self._crs.isValid():
            target.SetProjection(_wkt(self._crs))
        for band in () if self._rendered else bands:
            target.GetRasterBand(band).SetDescription(provider.generateBandName(band))
        tile = min(_TILE, max(1, provider.stepWidth()), max(1, provider.stepHeight()))
        tiles = [(x, y) for y in range(0, grid.height, tile) for x in range(0, grid.width, tile)]
        empty = 0  # pixels where a rendered map shows nothing
        for number, (x, y) in enumerate(tiles):
            size = (min(tile, grid.width - x), min(tile, grid.height - y))
            extent = grid.extent(x, y, *size)
            for band in bands:
                if reader.leaving:
                    return
                block = provider.block(band, extent, *size, reader.feedback)
                if not block.isValid() or (block.width(), block.height()) != size:
                    raise self._no_source(block.error().message() or provider.error().message())
                if self._rendered:
                    values = _rgba(block.image())
                    written = target.WriteRaster(
                        x, y, *size, values, *size, gdal.GDT_Byte, [1, 2, 3, 4], 4, 4 * size[0], 1
                    )
                    empty += values[3::4].count(0)
                else:
                    kind = _gdal_type(block.dataType())
                    values = bytes(block.data())
                    missing = block.noDataValue() if block.hasNoDataValue() else self._undeclared
                    if number == 0 and missing is not None:
                        target.GetRasterBand(band).SetNoDataValue(missing)
                    written = target.WriteRaster(x, y, *size, values, *size, kind, [band])
                if written != 0:
                    raise OSError(gdal.GetLastErrorMsg())
                reader.heard((number + band / len(bands)) / len(tiles))
        target.FlushCache()
        if reader.leaving:
            return
        share = empty / (grid.width * grid.height)
        reasons = "; ".join(reader.feedback.errors()[:1])
        if share == 1:
            raise self._no_source(reasons or _tr("it shows nothing there, or its server refused"))
        if share > 0:
            # QGIS does not tell a tile that could not be fetched from one with nothing in it.
            message = _tr("{0} % of the copy of “{1}” is empty: the map ends there, or parts were not sent.")
            reader.notes.append(message.format(f"{100 * share:.3g}", self._name))

    def _own_grid(self, reader: _Reader) -> _Grid:
        """The pixels of a source that has some: all of them, or those of the area and around it."""
        provider = self._provider
        extent, width, height = provider.extent(), provider.xSize(), provider.ySize()
        if width <= 0 or height <= 0:
            raise self._no_source(_tr("it does not say how many pixels it has"))
        x_size, y_size = extent.width() / width, extent.height() / height
        if self._area is None:
            return _Grid(extent.xMinimum(), extent.yMaximum(), x_size, y_size, width, height)
        transform = (extent.xMinimum(), x_size, 0.0, extent.yMaximum(), 0.0, -y_size)
        window = _with_context(pixel_window(transform, width, height, self._area), width, height)
        self._note_part(reader, window, width, height)
        left, top = extent.xMinimum() + window[0] * x_size, extent.yMaximum() - window[1] * y_size
        return _Grid(left, top, x_size, y_size, window[2], window[3])

    def _drawn_grid(self) -> _Grid:
        """The pixels a rendered map is drawn in: of the ground resolution, around the area."""
        if self.resolution <= 0:
            message = _tr("“{0}” has no pixels of its own: give a ground resolution in metres.")
            raise SceneError("E_RESOLUTION_NEEDED", message.format(self._name))
        area = QgsRectangle(self._area) if self._area is not None else QgsRectangle()
        whole = self._provider.extent()
        area = area.intersect(whole) if whole.isFinite() and not whole.isEmpty() else area
        if area.isEmpty():
            raise SceneError("E_AREA", _tr("The area does not touch the scene."))
        x_metres, y_metres = self._metres_per_unit(area)
        x_size, y_size = self.resolution / x_metres, self.resolution / y_metres
        width, height = math.ceil(area.width() / x_size), math.ceil(area.height() / y_size)
        return _Grid(
            area.xMinimum() - CONTEXT_PIXELS * x_size,
            area.yMaximum() + CONTEXT_PIXELS * y_size,
            x_size,
            y_size,
            width + 2 * CONTEXT_PIXELS,
            height + 2 * CONTEXT_PIXELS,
        )

    def _metres_per_unit(self, area: QgsRectangle) -> tuple[float, float]:
        """Metres on the ground that one unit of the layer's coordinates spans, along x and y, mid-area."""
        if not self._crs.isValid():
            return 1.0, 1.0
        ruler = QgsDistanceArea()
        ruler.setSourceCrs(self._crs, self._transform_context)
        ruler.setEllipsoid(self._crs.ellipsoidAcronym() or "EPSG:7030")
        middle, step = area.center(), max(area.width(), area.height()) / 1000.0
        east = QgsPointXY(middle.x() + step, middle.y())
        north = QgsPointXY(middle.x(), middle.y() + step)
        along = tuple(ruler.measureLine([middle, end]) / step for end in (east, north))
        if not all(math.isfinite(metres) and metres > 0 for metres in along):
            raise SceneError("E_AREA", _tr("The area lies where the scene's coordinates have no length."))
        return along[0], along[1]

    def _check_size(self, reader: _Reader, width: int, height: int, kinds: list[int]) -> None:
        if width * height > PIXEL_LIMIT:
            message = _tr(
                "The copy of “{0}” would have {1} x {2} pixels, more than {3} thousand million. Choose a "
                "smaller area or a coarser resolution."
            )
            raise SceneError(
                "E_COPY_TOO_LARGE", message.format(self._name, width, height, f"{PIXEL_LIMIT / 1e9:g}")
            )
        size = width * height * sum(gdal.GetDataTypeSize(kind) // 8 for kind in kinds)
        free = shutil.disk_usage(reader.path.parent).free
        if size + SPARE_BYTES > free:
            message = _tr(
                "The copy of “{0}” takes {1} GB ({2} x {3} pixels) and leaves {4} GB to others, but {5} has "
                "only {6} GB free."
            )
            numbers = (f"{size / 1e9:.2f}", width, height, f"{SPARE_BYTES / 1e9:.1f}")
            place = (reader.path.parents[1], f"{free / 1e9:.2f}")
            raise SceneError("E_DISK", message.format(self._name, *numbers, *place))

    def _note_part(self, reader: _Reader, window: tuple[int, ...], width: int, height: int) -> None:
        if window != (0, 0, width, height):
            reader.notes.append(
                _tr(
                    "Of “{0}” only the area and {1} pixels around it were copied: brightness is measured "
                    "there, so classes may differ from those of the whole layer."
                ).format(self._name, CONTEXT_PIXELS)
            )

    def _no_source(self, reason: str) -> SceneError:
        message = _tr("“{0}” cannot be copied: {1}.")
        return SceneError(
            "E_SOURCE", message.format(self._name, reason.strip().rstrip(".") or _tr("no data"))
        )


class _Grid(NamedTuple):
    """North-up pixels: the upper left corner, their size in map units, and how many."""

    left: float
    top: float
    x_size: float
    y_size: float
    width: int
    height: int

    def extent(self, column: int, row: int, width: int, height: int) -> QgsRectangle:
        """The box of some of them."""
        left, top = self.left + column * self.x_size, self.top - row * self.y_size
        return QgsRectangle(left, top - height * self.y_size, left + width * self.x_size, top)


class _Reader(threading.Thread):
    """The thread that reads and writes; whoever waits for it may leave it behind.

    Attributes:
        path: What it writes, in a folder of its own; in place when the thread ends without an error.
        share: How much is done, 0 to 1.
        leaving: Nobody waits for it any more.
        feedback: What a provider looks at while it waits.
        notes: What the user should know.
        error: Why there is no copy.
    """

    def __init__(self, copy: Callable[[_Reader], None], path: Path) -> None:
        super().__init__(name="rest-copy", daemon=True)
        self.share = 0.0
        self.leaving = False
        self.feedback = QgsRasterBlockFeedback()
        self.notes: list[str] = []
        self.error: SceneError | None = SceneError("E_COPY", _tr("The copy ended early; the log tells why."))
        self._copy = copy
        self._target = path
        self._last = time.monotonic()
        self._folder = path.parent / f".copying-{secrets.token_hex(8)}"
        self.path = self._folder / path.name

    def run(self) -> None:
        """Copy, then put the file in its place."""
        try:
            with self._scratch():
                self._copy(self)
                if not self.leaving:
                    for file in sorted(self._folder.iterdir(), key=lambda file: file.name == self.path.name):
                        file.replace(self._target.parent / file.name)  # the copy itself comes last
            self.error = None
        except SceneError as error:
            self.error = error.with_traceback(None)  # which would keep the source open
        except (OSError, RuntimeError) as error:  # the disk; GDAL where its exceptions are switched on
            self.error = SceneError("E_COPY", _tr("The layer cannot be copied: {0}.").format(error))

    def heard(self, share: float) -> None:
        """Note that the source gave something."""
        self.share = share
        self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """Seconds since the source gave something."""
        return time.monotonic() - self._last

    def leave(self) -> None:
        """Tell it to end, and wait a moment; it removes its files when it does."""
        self.leaving = True
        self.feedback.cancel()
        self.join(_LEAVE_SECONDS)

    @contextmanager
    def _scratch(self) -> Iterator[None]:
        self._folder.mkdir()
        try:
            yield
        finally:
            with suppress(OSError):
                shutil.rmtree(self._folder)


def _is_rendered(provider: Any) -> bool:
    return provider.dataType(1) in (Qgis.DataType.ARGB32, Qgis.DataType.ARGB32_Premultiplied)


def _with_context(window: tuple[int, ...], width: int, height: int) -> tuple[int, int, int, int]:
    column, row = max(0, window[0] - CONTEXT_PIXELS), max(0, window[1] - CONTEXT_PIXELS)
    right = min(width, window[0] + window[2] + CONTEXT_PIXELS)
    bottom = min(height, window[1] + window[3] + CONTEXT_PIXELS)
    return column, row, right - column, bottom - row


def _gdal_type(kind: Any) -> int:
    kinds = {
        Qgis.DataType.Byte: gdal.GDT_Byte,
        Qgis.DataType.UInt16: gdal.GDT_UInt16,
        Qgis.DataType.Int16: gdal.GDT_Int16,
        Qgis.DataType.UInt32: gdal.GDT_UInt32,
        Qgis.DataType.Int32: gdal.GDT_Int32,
        Qgis.DataType.Float32: gdal.GDT_Float32,
        Qgis.DataType.Float64: gdal.GDT_Float64,
    }
    if kind not in kinds:
        raise SceneError("E_SOURCE", _tr("The layer's values are of a kind that cannot be copied."))
    return kinds[kind]


def _common_type(kinds: list[int]) -> int:
    common = kinds[0]
    for kind in kinds[1:]:
        common = gdal.DataTypeUnion(common, kind)
    return common


def _rgba(image: QImage) -> bytes:
    """Return red, green, blue and alpha of every pixel, row by row."""
    plain = image.convertToFormat(QImage.Format.Format_RGBA8888)
    return plain.constBits().asstring(plain.sizeInBytes())


def _wkt(crs: QgsCoordinateReferenceSystem) -> str:
    reference = osr.SpatialReference()
    reference.SetFromUserInput(crs.authid() if crs.authid().startswith("EPSG:") else crs.toWkt())
    return reference.ExportToWkt()


def _tr(text: str) -> str:
    return QCoreApplication.translate("LayerCopy", text)
