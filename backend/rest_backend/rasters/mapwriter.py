"""Writing result rasters: complete at their places, or not at all.

Rows go into a tiled temporary GeoTIFF in the output's own folder as they come; at
the end it becomes a cloud-optimised GeoTIFF (COG) with overviews, which is read back
and compared, written through to the disk and renamed. Side files are in place just
before, so whoever sees the raster sees its legend. Several rasters of one job are put in
place together by :func:`finish_together`: all of them, or none.

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
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

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
from rest_backend.rasters.replacing import Move, replace_all
from rest_backend.rasters.scene import Scene
from rest_backend.rasters.windows import checked_window

NODATA = 255
_Writer = TypeVar("_Writer", bound="MapWriter")
DISK_SPARE = 1_000_000  # bytes

COG_OPTIONS = {
    "COMPRESS": "DEFLATE",  # every GDAL of every QGIS reads it
    "PREDICTOR": "NO",  # ids are no gradient, and scores of neighbours differ in their last bits
    "OVERVIEWS": "IGNORE_EXISTING",
    "BIGTIFF": "IF_SAFER",
}


@dataclass(frozen=True)
class Layout:
    """What one kind of result raster has of its own.

    Attributes:
        names: Description of each band.
        block: Height and width of the tiles, pixels; so many rows are gathered before they are written.
        overviews: GDAL's name of how overviews are made.
        disk_share: Most bytes on the disk while it is written, per pixel and band.
        documents: Content of the side files by what follows the output's name, ``.aux.xml`` and ``.qml``.
        scale: What a stored value is multiplied by to be understood.
    """

    names: tuple[str, ...]
    block: int
    overviews: str
    disk_share: float
    documents: Mapping[str, bytes]
    scale: float = 1.0

    def needed_bytes(self, width: int, height: int) -> int:
        """Most bytes a raster of a size, in pixels, takes on the disk while it is written."""

        def rounded(side: int) -> int:
            return -(-side // self.block) * self.block

        return int(len(self.names) * rounded(width) * rounded(height) * self.disk_share) + DISK_SPARE


class MapWriter:
    """Writer of one uint8 raster; use a class made of it as a context manager.

    Leaving the context without :meth:`finish`, by an error or not, removes every
    temporary file and leaves an older result at the output's place as it was.

    Attributes:
        path: Where the raster will be.
        window: (column, row, width, height) of the scene it covers, pixels.
        needed_bytes: Most bytes it takes on the disk while it is written.
        temporary_paths: Every file of ours that may exist before it is in place, for whoever has to
            clean up after this process was killed. Not those an older result is kept in while it is
            replaced: after a kill in that moment they may be all there is of it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        scene: Scene,
        window: tuple[int, int, int, int] | None,
        tags: Mapping[str, str],
        layout: Layout,
    ) -> None:
        """Check what was asked for; nothing is written yet.

        Args:
            path: The output, ending in ``.tif`` or ``.tiff``.
            scene: The scene the raster belongs to, still open.
            window: (column, row, width, height) in pixels of the scene; None is all.
            tags: Provenance, written as TIFF metadata of the default domain.
            layout: Bands, overviews and side files.

        Raises:
            InputError: With a code of this module.
        """
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  keeps a link's own name, unlike resolve()
        self.window = checked_window(scene, window)
        _check_output(self.path, scene.path, scene.files)
        self.needed_bytes = layout.needed_bytes(*self.window[2:])
        self._scene = scene
        self._tags = dict(tags)
        self._layout = layout
        stem = f".rest-{secrets.token_hex(8)}"
        self._rows = self.path.with_name(f"{stem}.rows.tif")
        self._map = self.path.with_name(f"{stem}.map.tif")
        self._side_files: dict[Path, bytes] = {}
        self._moves: list[Move] = []
        for suffix, content in layout.documents.items():
            temporary = self.path.with_name(stem + suffix)
            self._side_files[temporary] = content
            self._moves.append(Move(temporary, _side_place(self.path, suffix), _aside(temporary)))
        self._moves.append(Move(self._map, self.path, _aside(self._map)))  # the last to appear
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
        self._checksums = [0] * len(layout.names)
        self._pending = np.empty((0, 0, 0), dtype=np.uint8)
        self._pending_rows = 0

    def __enter__(self: _Writer) -> _Writer:
        """Create the temporary file, if the folder takes one and the disk has room for the whole raster.

        Raises:
            InputError: ``E_OUTPUT_FOLDER``.
            ResourceError: ``E_DISK``.
        """
        with ExitStack() as on_failure:
            on_failure.callback(self._discard)
            _claim(self._rows, self.needed_bytes)
            check_space([self])
            with self._writing():
                self._dataset = self._create_rows()
            shape = (len(self._layout.names), self._layout.block, self.window[2])
            self._pending = np.empty(shape, dtype=np.uint8)
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is temporary: everything, unless it is in place."""
        self._discard()

    def finish(self) -> None:
        """Make the COG and put it and its side files in place.

        Raises:
            ValueError: Rows are missing.
            InputError: ``E_OUTPUT_IN_USE``.
            ResourceError: ``E_DISK``.
        """
        finish_together([self])

    def complete(self) -> list[Move]:
        """Make and check the COG and its side files, still under temporary names.

        Returns:
            How they are to be put in place.

        Raises:
            ValueError: Rows are missing.
            ResourceError: ``E_DISK``.
        """
        if self._next_row != self.window[3]:
            raise ValueError(f"{self._next_row} of {self.window[3]} rows were written")
        self._flush()
        with self._writing():
            self._dataset.close()
            self._dataset = None
            layout = self._layout
            rasterio.shutil.copy(
                str(self._rows),
                str(self._map),
                driver="COG",
                BLOCKSIZE=layout.block,
                OVERVIEW_RESAMPLING=layout.overviews,
                **COG_OPTIONS,
            )
            self._rows.unlink()
            self._verify()
            _through_to_disk(self._map)
            for temporary, document in self._side_files.items():
                temporary.write_bytes(document)
                _through_to_disk(temporary)
        return self._moves

    def _append(self, row: int, values: NDArray[np.uint8]) -> None:
        """Append rows: uint8 ``(bands, rows, width)``, in order, any number of them."""
        width, height = self.window[2:]
        bands = len(self._layout.names)
        if values.dtype != np.uint8 or values.ndim != 3 or values.shape[::2] != (bands, width):
            raise ValueError(
                f"rows must be uint8, {bands} bands, {width} wide, not {values.dtype} {values.shape}"
            )
        count = values.shape[1]
        if row != self._next_row or row + count > height:
            raise ValueError(f"rows {row} to {row + count} do not follow row {self._next_row} of {height}")
        for band, plane in enumerate(values):
            self._checksums[band] = zlib.crc32(np.ascontiguousarray(plane).data, self._checksums[band])
        taken, block = 0, self._layout.block
        while taken < count:
            some = min(block - self._pending_rows, count - taken)
            self._pending[:, self._pending_rows : self._pending_rows + some] = values[:, taken : taken + some]
            self._pending_rows += some
            self._next_row += some
            taken += some
            if self._pending_rows == block:
                self._flush()

    def _create_rows(self) -> Any:
        width, height = self.window[2:]
        georeference = shifted_georeference(self._scene, self.window[0], self.window[1])
        bands = len(self._layout.names)
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "width": width,
            "height": height,
            "count": bands,
            "dtype": "uint8",
            "nodata": NODATA,
            "tiled": True,
            "blockxsize": self._layout.block,
            "blockysize": self._layout.block,
            "interleave": "band",
            "photometric": "MINISBLACK",  # else three bands are colours, and the fourth hides pixels
            "ALPHA": "NO",
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
        for number, name in enumerate(self._layout.names, start=1):
            dataset.set_band_description(number, name)
        if self._layout.scale != 1.0:
            dataset.scales = [self._layout.scale] * bands
        return dataset

    def _flush(self) -> None:
        if not self._pending_rows:
            return
        top = self._next_row - self._pending_rows
        with self._writing():
            self._dataset.write(
                self._pending[:, : self._pending_rows],
                window=Window(0, top, self.window[2], self._pending_rows),
            )
        self._pending_rows = 0

    def _verify(self) -> None:
        """Read the raster back: GDAL does not report every write that a full disk cut short."""
        checksums = [0] * len(self._checksums)
        width, height = self.window[2:]
        with rasterio.open(str(self._map)) as written:
            for row in range(0, height, self._layout.block):
                rows = min(self._layout.block, height - row)
                for band, plane in enumerate(written.read(window=Window(0, row, width, rows))):
                    checksums[band] = zlib.crc32(plane, checksums[band])
        if checksums != self._checksums:
            raise OSError("the file does not hold what was written")

    def _discard(self) -> None:
        if self._dataset is not None:
            dataset, self._dataset = self._dataset, None
            with suppress(RasterioError, CPLE_BaseError):  # the file is removed anyway
                dataset.close()
        for path in self.temporary_paths:
            with suppress(OSError):  # what led here is the error to tell
                path.unlink()

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
            raise _disk_error(self.path.parent, error, self.needed_bytes) from error


def finish_together(writers: Sequence[MapWriter]) -> None:
    """Finish the rasters of one job: every COG is made and checked before the first is put in place.

    Args:
        writers: Their contexts entered and all their rows written; the last appears last.

    Raises:
        ValueError: Rows are missing.
        InputError: ``E_OUTPUT_IN_USE``; every older result is back at its place.
        ResourceError: ``E_DISK``; likewise.
    """
    moves = [move for writer in writers for move in writer.complete()]
    try:
        replace_all(moves)
    except PermissionError as error:
        name = Path(str(error.filename2)).name
        raise InputError(
            "E_OUTPUT_IN_USE",
            f"{name} cannot be replaced: it is open in another program. Remove its layer from QGIS, or "
            "choose another name.",
        ) from error
    except OSError as error:
        needed = sum(writer.needed_bytes for writer in writers)
        raise _disk_error(writers[0].path.parent, error, needed) from error
    places = {move.place for move in moves}
    for writer in writers:
        for leftover in (".ovr", ".msk", ".aux.xml"):  # of what was replaced; they would be taken for ours
            file = _side_place(writer.path, leftover)
            if file not in places:
                file.unlink(missing_ok=True)


def check_space(writers: Sequence[MapWriter]) -> None:
    """Refuse rasters for which a disk has no room together.

    Args:
        writers: Of one job.

    Raises:
        ResourceError: ``E_DISK``; the sentence names the bytes needed and the bytes free.
    """
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for writer in writers:
        folder = writer.path.parent
        disk = folder.stat().st_dev
        needed[disk] = needed.get(disk, 0) + writer.needed_bytes
        folders[disk] = folder
    for disk, folder in folders.items():
        free = shutil.disk_usage(folder).free
        if free < needed[disk]:
            raise ResourceError(
                "E_DISK",
                f"The result needs up to {_megabytes(needed[disk])} in {folder} while it is written, and "
                f"{_megabytes(free)} are free. Make room, or write it elsewhere.",
            )


def _side_place(path: Path, suffix: str) -> Path:
    """Where a file beside a raster belongs: QGIS's style replaces the ending, GDAL's follow it."""
    return path.with_suffix(suffix) if suffix == ".qml" else path.with_name(path.name + suffix)


def _aside(temporary: Path) -> Path:
    return temporary.with_name(temporary.name + ".old")


def _check_output(path: Path, scene: Path, sources: Sequence[Path]) -> None:
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(
            "E_OUTPUT_NAME", f"The result is a GeoTIFF: give a name that ends in .tif, not {path.name}."
        )
    try:
        if not path.parent.is_dir():
            raise InputError("E_OUTPUT_FOLDER", f"There is no folder {path.parent} to write the result to.")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise _not_writable(path.parent, "it is read-only, or another user's")
        for place in (path, _side_place(path, ".qml"), _side_place(path, ".aux.xml")):
            if place.is_dir():
                raise InputError("E_OUTPUT_NAME", f"{place} is a folder: give the name of a file.")
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


def _claim(path: Path, needed: int) -> None:
    """Create the file, to learn by whose fault it cannot be, which GDAL would not tell."""
    try:
        path.open("xb").close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_error(path.parent, error, needed) from error
        raise _not_writable(path.parent, error.strerror or str(error)) from error


def _not_writable(folder: Path, why: str) -> InputError:
    return InputError("E_OUTPUT_FOLDER", f"Nothing can be written to the folder {folder}: {why}.")


def _disk_error(folder: Path, error: BaseException, needed: int) -> ResourceError:
    free = ""
    with suppress(OSError):
        free = f", and {_megabytes(shutil.disk_usage(folder).free)} are free"
    return ResourceError(
        "E_DISK",
        f"The result could not be written to {folder}: the disk is full or fails ({error}). It needs up to "
        f"{_megabytes(needed)} while it is written{free}.",
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _through_to_disk(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
