"""What a raster file says about itself, read and bounded before any pixel.

Codes raised here, all :class:`~rest_backend.errors.InputError`:

==================== ============================================================
``E_SCENE_MISSING``    no such file
``E_SCENE_REMOTE``     a URL, a path into an archive, or a file that stands for a web service
``E_SCENE_UNREADABLE`` a folder, no permission, or a header that cannot be read
``E_SCENE_NOT_RASTER`` a file no raster driver recognises, or one without bands
``E_SCENE_CONTAINER``  a file that holds several rasters
``E_SCENE_TOO_LARGE``  width, height or number of bands beyond the limits below
``E_SCENE_BLOCKS``     blocks so large that one cannot be read in bounded memory
==================== ============================================================
"""

from __future__ import annotations

import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from rest_backend.errors import InputError
from rest_backend.rasters.environment import NETWORK_DRIVERS
from rest_backend.rasters.sources import is_address

MAXIMUM_SIDE = 500_000  # pixels, width and height
MAXIMUM_BANDS = 512
MAXIMUM_BLOCK = 64 * 1024**2  # bytes of one block of one band, decoded
MAXIMUM_BLOCK_GROUP = 1024**3  # bytes of one block of all the bands that are decoded together
MAXIMUM_BLOCK_ROW = 4 * 1024**3  # bytes of the blocks that cover one row of the scene


@dataclass(frozen=True)
class Header:
    """The header of a raster file; one entry a band where it is a tuple.

    Attributes:
        path: Absolute path of the file.
        files: Every file GDAL reads for it: itself, side files, the sources of a VRT.
        driver: GDAL's name of the format.
        width: Pixels in a row.
        height: Rows.
        transform: Pixel to map, as stored, bit for bit.
        georeferenced: Whether the file has a transform at all.
        crs: Coordinate reference system, a rasterio CRS, or None.
        gcps: Ground control points (rasterio objects), without a transform only.
        gcp_crs: The control points' reference system, or None.
        rpcs: Rational polynomial coefficients, a rasterio RPC, or None.
        dtypes: Stored types, such as ``"uint16"``.
        nodata: Declared nodata values, or None.
        scales: What stored values are multiplied by, 1 without a declaration.
        offsets: What is added then, 0 without a declaration.
        interpretations: What the bands stand for.
        mask_flags: GDAL's mask flags.
        names: The bands' descriptions, ``Band N`` without one.
        blocks: (height, width) of the bands' blocks, pixels.
        pixel_interleaved: Whether a block holds all bands.
    """

    path: Path
    files: tuple[Path, ...]
    driver: str
    width: int
    height: int
    transform: Affine
    georeferenced: bool
    crs: Any
    gcps: tuple[Any, ...]
    gcp_crs: Any
    rpcs: Any
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    interpretations: tuple[ColorInterp, ...]
    mask_flags: tuple[frozenset[MaskFlags], ...]
    names: tuple[str, ...]
    blocks: tuple[tuple[int, int], ...]
    pixel_interleaved: bool

    @property
    def band_count(self) -> int:
        """Number of bands in the file."""
        return len(self.dtypes)

    def block_row_bytes(self, bands: tuple[int, ...]) -> int:
        """Decoded size of the blocks that one row of the scene crosses.

        Args:
            bands: 1-based bands that are read.

        Returns:
            Bytes, of all bands of the file where a block holds them all.
        """
        counted = range(1, self.band_count + 1) if self.pixel_interleaved else sorted(set(bands))
        total = 0
        for band in counted:
            block_height, block_width = self.blocks[band - 1]
            across = math.ceil(self.width / block_width) * block_width
            total += across * block_height * _item_bytes(self.dtypes[band - 1])
        return total


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of a local raster file.

    Args:
        path: Path of the file.

    Returns:
        The header, within the limits of this module.

    Raises:
        InputError: With a code of this module.
    """
    file = local_file(path)
    with open_raster(file) as dataset:
        if dataset.driver in NETWORK_DRIVERS:
            raise InputError(
                "E_SCENE_REMOTE",
                f"{file.name} describes a web service ({dataset.driver}): only files of this computer can be "
                "read. Export the layer to a GeoTIFF first.",
            )
        if dataset.count == 0:
            if dataset.subdatasets:
                raise InputError(
                    "E_SCENE_CONTAINER",
                    f"{file.name} holds {len(dataset.subdatasets)} rasters: export the one to use to a "
                    "GeoTIFF first.",
                )
            raise InputError("E_SCENE_NOT_RASTER", f"{file.name} holds no raster bands.")
        _check_size(file, dataset.width, dataset.height, dataset.count)
        header = _header_of(file, dataset)
    _check_blocks(header)
    return header


def local_file(path: str | os.PathLike[str]) -> Path:
    """The absolute path of an existing, readable file of this computer.

    Args:
        path: Path as the user gave it.

    Returns:
        The absolute path.

    Raises:
        InputError: ``E_SCENE_REMOTE``, ``E_SCENE_MISSING`` or ``E_SCENE_UNREADABLE``.
    """
    text = os.fspath(path)
    if is_address(text):
        raise InputError(
            "E_SCENE_REMOTE", f"{text} is not a file of this computer: download or unpack the scene first."
        )
    if "\0" in text:
        raise InputError("E_SCENE_MISSING", "The scene's path holds a NUL character: there is no such file.")
    file = Path(text).absolute()
    try:
        kind = file.stat().st_mode
        if stat.S_ISDIR(kind):
            raise InputError("E_SCENE_UNREADABLE", f"{file} is a folder: name a raster file in it.")
        if not stat.S_ISREG(kind):  # opening a pipe would wait for ever
            raise InputError("E_SCENE_UNREADABLE", f"{file} is not an ordinary file.")
        with file.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        raise InputError("E_SCENE_MISSING", f"There is no file {file}.") from None
    except OSError as error:
        raise InputError("E_SCENE_UNREADABLE", f"{file} cannot be read: {error.strerror}.") from error
    return file


@contextmanager
def open_raster(file: Path, **options: Any) -> Iterator[Any]:
    """Open a raster for reading, failures told in a sentence.

    Args:
        file: Absolute path.
        **options: Open options of the driver.

    Yields:
        The rasterio dataset, closed at the end.

    Raises:
        InputError: ``E_SCENE_NOT_RASTER`` or ``E_SCENE_UNREADABLE``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told by a note of the scene
            dataset = rasterio.open(str(file), sharing=False, **options)
    except RasterioError as error:
        if "not recognized as being in a supported file format" in str(error):
            raise InputError(
                "E_SCENE_NOT_RASTER", f"{file.name} is not a raster in a format that can be read."
            ) from error
        raise InputError(
            "E_SCENE_UNREADABLE", f"{file.name} cannot be opened: it seems to be damaged ({error})."
        ) from error
    with dataset:
        yield dataset


def _header_of(file: Path, dataset: Any) -> Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        gcps, gcp_crs = dataset.gcps
        transform = dataset.transform
        rpcs = dataset.rpcs
    georeferenced = transform != Affine.identity()
    return Header(
        path=file,
        files=tuple(Path(name) for name in dataset.files),
        driver=dataset.driver,
        width=dataset.width,
        height=dataset.height,
        transform=transform,
        georeferenced=georeferenced,
        crs=dataset.crs,
        gcps=() if georeferenced else tuple(gcps),
        gcp_crs=None if georeferenced else gcp_crs,
        rpcs=rpcs,
        dtypes=tuple(dataset.dtypes),
        nodata=tuple(dataset.nodatavals),
        scales=tuple(dataset.scales),
        offsets=tuple(dataset.offsets),
        interpretations=tuple(dataset.colorinterp),
        mask_flags=tuple(frozenset(flags) for flags in dataset.mask_flag_enums),
        names=tuple(text or f"Band {index}" for index, text in enumerate(dataset.descriptions, start=1)),
        blocks=tuple(dataset.block_shapes),
        pixel_interleaved=dataset.interleaving == Interleaving.pixel and dataset.count > 1,
    )


def _check_size(file: Path, width: int, height: int, bands: int) -> None:
    if width > MAXIMUM_SIDE or height > MAXIMUM_SIDE:
        raise InputError(
            "E_SCENE_TOO_LARGE",
            f"{file.name} has {width} x {height} pixels: at most {MAXIMUM_SIDE} along each side can be read.",
        )
    if bands > MAXIMUM_BANDS:
        raise InputError(
            "E_SCENE_TOO_LARGE", f"{file.name} has {bands} bands: at most {MAXIMUM_BANDS} can be read."
        )


def _check_blocks(header: Header) -> None:
    """Refuse files whose smallest readable piece is out of proportion.

    PNG, JPEG and striped files report scanlines or strips as blocks, and GDAL
    reads a TIFF of one strip by scanlines from 2000 rows on, so whole-image
    blocks of ordinary files stay far below the limits.
    """
    sizes = [
        height * width * _item_bytes(dtype)
        for (height, width), dtype in zip(header.blocks, header.dtypes, strict=True)
    ]
    group = sum(sizes) if header.pixel_interleaved else max(sizes)
    if max(sizes) > MAXIMUM_BLOCK or group > MAXIMUM_BLOCK_GROUP:
        raise block_error(header)


def block_error(header: Header) -> InputError:
    """The refusal of a scene whose blocks are too large to be read piece by piece."""
    height, width = max(header.blocks)
    return InputError(
        "E_SCENE_BLOCKS",
        f"{header.path.name} is stored in blocks of {width} x {height} pixels, too large to be read piece by "
        "piece: convert it to a GeoTIFF of smaller tiles first (gdal_translate -co TILED=YES).",
    )


def _item_bytes(dtype: str) -> int:
    # complex_int16 is rasterio's name for a type numpy does not have
    return 4 if dtype == "complex_int16" else np.dtype(dtype).itemsize
