"""Writing a class map: complete at its place, or not at all.

Rows go into a tiled temporary GeoTIFF in the output's own folder as they come; at
the end it becomes a cloud-optimised GeoTIFF (COG) with overviews by mode, which is
read back and compared, written through to the disk and renamed. ``OUT.tif.aux.xml``
and ``OUT.qml`` are in place just before, so whoever sees the map sees its legend.

Codes raised here:

=================== ==========================================================
``E_OUTPUT_NAME``     not a .tif or .tiff, or a folder (InputError)
``E_OUTPUT_IS_SCENE`` the scene itself, or its style, would be overwritten (InputError)
``E_OUTPUT_FOLDER``   no such folder, or nothing can be written there (InputError)
``E_OUTPUT_IN_USE``   the file to replace is open in another program (InputError)
``E_WINDOW``          a window that is empty or leaves the scene (InputError)
``E_DISK``            the disk is too full, or fails (ResourceError)
=================== ==========================================================
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # GDAL's own errors have no public name
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rest_backend.errors import InputError, ResourceError
from rest_backend.rasters.environment import raster_environment
from rest_backend.rasters.georeference import shifted_georeference
from rest_backend.rasters.legend import MapClass, auxiliary_document, check_classes, style_document
from rest_backend.rasters.scene import Scene

NODATA = 255
BLOCK = 512  # pixels, height and width of the map's tiles
DISK_SHARE = 1.35  # the rows, and the COG with its overviews at a third of their size
DISK_SPARE = 1_000_000  # bytes

COG_OPTIONS = {
    "COMPRESS": "DEFLATE",  # every GDAL of every QGIS reads it
    "PREDICTOR": "NO",  # ids are no gradient
    "BLOCKSIZE": BLOCK,
    "OVERVIEWS": "IGNORE_EXISTING",
    "OVERVIEW_RESAMPLING": "MODE",
    "BIGTIFF": "IF_SAFER",
}


class ClassMapWriter:
    """Writer of one class map; use it as a context manager.

    Leaving the context without :meth:`finish`, by an error or not, removes every
    temporary file and leaves an older result at the output's place as it was.

    Attributes:
        path: Where the map will be.
        window: (column, row, width, height) of the scene the map covers, pixels.
        temporary_paths: Every file that may exist before :meth:`finish` is done, for
            whoever has to clean up after this process was killed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scene,
        window: tuple[int, int, int, int] | None,
        classes: Sequence[MapClass],
        tags: Mapping[str, str],
    ) -> None:
        """Check what was asked for; nothing is written yet.

        Args:
            path: The output, ending in ``.tif`` or ``.tiff``.
            scene: The scene the map belongs to, still open.
            window: (column, row, width, height) in pixels of the scene; None is all.
            classes: Objects with ``id`` (0-254), ``name`` and ``color`` (``#rrggbb``).
            tags: Provenance, written as TIFF metadata of the default domain.

        Raises:
            InputError: With a code of this module.
            ValueError: Classes that make no map.
        """
        check_classes(classes)
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  keeps a link's own name, unlike resolve()
        self.window = _checked_window(scene, window)
        _check_output(self.path, scene.path, scene.files)
        self._scene = scene
        self._classes = classes
        self._tags = dict(tags)
        stem = self.path.parent / f".rest-{secrets.token_hex(8)}"
        self._rows = stem.with_name(stem.name + ".rows.tif")
        self._map = stem.with_name(stem.name + ".map.tif")
        self._side_files = {
            stem.with_name(stem.name + ".aux.xml"): self.path.with_name(self.path.name + ".aux.xml"),
            stem.with_name(stem.name + ".qml"): self.path.with_suffix(".qml"),
        }
        self.temporary_paths: tuple[Path, ...] = (
            self._rows,
            self._rows.with_name(self._rows.name + ".aux.xml"),
            self._map,
            self._map.with_name(self._map.name + ".ovr.tmp"),  # of GDAL's COG driver
            self._map.with_name(self._map.name + ".aux.xml"),
            *self._side_files,
        )
        self._dataset: Any = None
        self._next_row = 0
        self._checksum = 0
        self._pending = np.empty((0, 0), dtype=np.uint8)
        self._pending_rows = 0

    def __enter__(self) -> ClassMapWriter:
        """Create the temporary file, if the folder takes one and the disk has room for the whole job.

        Raises:
            InputError: ``E_OUTPUT_FOLDER``.
            ResourceError: ``E_DISK``.
        """
        with ExitStack() as on_failure:
            on_failure.callback(self._discard)
            _claim(self._rows)
            _check_space(self.path.parent, self.window[2], self.window[3])
            with self._writing():
                self._dataset = self._create_rows()
            self._pending = np.empty((BLOCK, self.window[2]), dtype=np.uint8)
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is temporary: everything, unless :meth:`finish` succeeded."""
        self._discard()

    def write(self, row: int, values: NDArray[np.uint8]) -> None:
        """Append rows.

        Args:
            row: First row, relative to the window's top; rows come in order, without gaps.
            values: uint8 ``(rows, width)``, ids 0 to 254, 255 where there is no data;
                any number of rows.

        Raises:
            ValueError: Rows out of order, or of another width or type.
            ResourceError: ``E_DISK``.
        """
        width, height = self.window[2:]
        if values.dtype != np.uint8 or values.ndim != 2 or values.shape[1] != width:
            raise ValueError(f"rows must be uint8 (rows, {width}), not {values.dtype} {values.shape}")
        if row != self._next_row or row + values.shape[0] > height:
            raise ValueError(
                f"rows {row} to {row + values.shape[0]} do not follow row {self._next_row} of {height}"
            )
        contiguous = np.ascontiguousarray(values)
        self._checksum = zlib.crc32(contiguous.data, self._checksum)
        taken = 0
        while taken < len(contiguous):
            count = min(BLOCK - self._pending_rows, len(contiguous) - taken)
            self._pending[self._pending_rows : self._pending_rows + count] = contiguous[taken : taken + count]
            self._pending_rows += count
            self._next_row += count
            taken += count
            if self._pending_rows == BLOCK:
                self._flush()

    def finish(self) -> None:
        """Make the COG and put it and its side files in place.

        Raises:
            ValueError: Rows are missing.
            InputError: ``E_OUTPUT_IN_USE``.
            ResourceError: ``E_DISK``.
        """
        if self._next_row != self.window[3]:
            raise ValueError(f"{self._next_row} of {self.window[3]} rows were written")
        self._flush()
        with self._writing():
            self._dataset.close()
            self._dataset = None
            rasterio.shutil.copy(str(self._rows), str(self._map), driver="COG", **COG_OPTIONS)
            self._rows.unlink()
            self._verify()
            _through_to_disk(self._map)
            documents = (auxiliary_document(self._classes), style_document(self._classes))
            for temporary, document in zip(self._side_files, documents, strict=True):
                temporary.write_bytes(document)
                _through_to_disk(temporary)
        self._put_in_place()

    def _create_rows(self) -> Any:
        width, height = self.window[2:]
        georeference = shifted_georeference(self._scene, self.window[0], self.window[1])
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "width": width,
            "height": height,
            "count": 1,
            "dtype": "uint8",
            "nodata": NODATA,
            "tiled": True,
            "blockxsize": BLOCK,
            "blockysize": BLOCK,
            "BIGTIFF": "IF_SAFER",
        }
        if georeference.transform is not None:
            profile["transform"] = georeference.transform
        if georeference.crs is not None:
            profile["crs"] = georeference.crs
        dataset = rasterio.open(str(self._rows), "w", **profile)
        if georeference.gcps:
            dataset.gcps = (list(georeference.gcps), georeference.gcp_crs)
        if georeference.rpcs is not None:
            dataset.rpcs = georeference.rpcs
        dataset.update_tags(**self._tags)
        dataset.set_band_description(1, "class")
        return dataset

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        top = self._next_row - self._pending_rows
        with self._writing():
            self._dataset.write(
                self._pending[: self._pending_rows],
                1,
                window=Window(0, top, self.window[2], self._pending_rows),
            )
        self._pending_rows = 0

    def _verify(self) -> None:
        """Read the map back: GDAL does not report every write that a full disk cut short."""
        checksum = 0
        width, height = self.window[2:]
        with rasterio.open(str(self._map)) as written:
            for row in range(0, height, BLOCK):
                rows = min(BLOCK, height - row)
                checksum = zlib.crc32(written.read(1, window=Window(0, row, width, rows)), checksum)
        if checksum != self._checksum:
            raise OSError("the file does not hold what was written")

    def _put_in_place(self) -> None:
        """Side files first, the map last; old side files come back if the map cannot be replaced."""
        before = {place: _content(place) for place in self._side_files.values()}
        try:
            for temporary, place in self._side_files.items():
                os.replace(temporary, place)  # noqa: PTH105  the atomic call, by its own name
            os.replace(self._map, self.path)  # noqa: PTH105
        except OSError as error:
            for place, content in before.items():
                _restore(place, content)
            if isinstance(error, PermissionError):
                raise InputError(
                    "E_OUTPUT_IN_USE",
                    f"{self.path.name} cannot be replaced: it is open in another program. Remove its layer "
                    "from QGIS, or choose another name.",
                ) from error
            raise _disk_error(self.path.parent, error) from error
        for leftover in (".ovr", ".msk"):  # of the map that was replaced; they would be taken for this one's
            self.path.with_name(self.path.name + leftover).unlink(missing_ok=True)
        _folder_through_to_disk(self.path.parent)

    def _discard(self) -> None:
        if self._dataset is not None:
            dataset, self._dataset = self._dataset, None
            with suppress(RasterioError, CPLE_BaseError):  # the file is removed anyway
                dataset.close()
        for path in self.temporary_paths:
            path.unlink(missing_ok=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """GDAL's settings for writing, and its failures as an error of ours."""
        try:
            with (
                raster_environment(self._scene.cache_bytes),
                rasterio.Env(GDAL_PAM_ENABLED="NO"),  # no side file of GDAL's own beside ours
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                yield
        except (RasterioError, CPLE_BaseError, OSError) as error:
            raise _disk_error(self.path.parent, error) from error


def _checked_window(scene: Scene, window: tuple[int, int, int, int] | None) -> tuple[int, int, int, int]:
    if window is None:
        return (0, 0, scene.width, scene.height)
    column, row, width, height = window
    inside = 0 <= column < column + width <= scene.width and 0 <= row < row + height <= scene.height
    if not inside:
        raise InputError(
            "E_WINDOW",
            f"The area (column {column}, row {row}, {width} x {height} pixels) is empty or leaves the scene, "
            f"which has {scene.width} x {scene.height} pixels.",
        )
    return (column, row, width, height)


def _check_output(path: Path, scene: Path, sources: Sequence[Path]) -> None:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(
            "E_OUTPUT_NAME", f"The result is a GeoTIFF: give a name that ends in .tif, not {path.name}."
        )
    try:
        if not path.parent.is_dir():
            raise InputError("E_OUTPUT_FOLDER", f"There is no folder {path.parent} to write the result to.")
        if path.is_dir():
            raise InputError("E_OUTPUT_NAME", f"{path} is a folder: give the name of a file.")
        with suppress(FileNotFoundError):
            path.with_name(path.name + ".aux.xml").lstat()  # the longest name that will be needed
    except OSError as error:  # too long, or characters this disk does not take
        raise InputError(
            "E_OUTPUT_NAME", f"{path.name} cannot be the name of a file there: {error.strerror}."
        ) from error
    # QGIS takes STEM.qml as the style of every layer of that stem, so also of the scene.
    same_stem = path.stem == scene.stem and path.parent.resolve() == scene.parent.resolve()
    read = [scene, *(file for file in sources if file.exists())]
    if same_stem or (path.exists() and any(path.samefile(file) for file in read)):
        raise InputError(
            "E_OUTPUT_IS_SCENE",
            f"The result would replace the scene {scene.name} or its style: choose another name.",
        )


def _check_space(folder: Path, width: int, height: int) -> None:
    def rounded(side: int) -> int:
        return -(-side // BLOCK) * BLOCK

    needed = int(rounded(width) * rounded(height) * DISK_SHARE) + DISK_SPARE
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            "E_DISK",
            f"The result needs up to {needed / 1e6:,.0f} MB in {folder} while it is written, and "
            f"{free / 1e6:,.0f} MB are free.",
        )


def _claim(path: Path) -> None:
    """Create the file, to learn by whose fault it cannot be, which GDAL would not tell."""
    try:
        path.open("xb").close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_error(path.parent, error) from error
        raise InputError(
            "E_OUTPUT_FOLDER", f"Nothing can be written to the folder {path.parent}: {error.strerror}."
        ) from error


def _disk_error(folder: Path, error: BaseException) -> ResourceError:
    return ResourceError(
        "E_DISK", f"The result could not be written to {folder}: the disk is full or fails ({error})."
    )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _restore(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
    elif path.read_bytes() != content:
        path.write_bytes(content)


def _through_to_disk(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _folder_through_to_disk(folder: Path) -> None:
    if os.name != "posix":  # Windows has no handle on a folder to flush
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
