"""Reading the polygons of a vector file, bounded and repaired.

Codes raised here, all :class:`~rest_backend.errors.InputError`:

==================== ============================================================
``E_AOI_MISSING``      no such file
``E_AOI_UNREADABLE``   a URL, a folder, an archive, no permission, damaged, no vector file,
                       or one that only points to a service
``E_AOI_EMPTY``        no polygon in it
``E_AOI_TOO_LARGE``    file, features or vertices beyond the limits below
==================== ============================================================
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.errors import CRSError

from rest_backend.errors import CancelledError, InputError
from rest_backend.rasters.sources import is_address

MAXIMUM_FILE = 1024**3  # bytes
MAXIMUM_FEATURES = 200_000
MAXIMUM_VERTICES = 2_000_000
BATCH = 10_000  # features read in one go
LARGEST_COORDINATE = 1e100  # its square can still be computed

# Drivers that fetch over the network what a small local file names, or open other files by its word.
POINTING_DRIVERS = frozenset(
    {
        "ADBC", "AmigoCloud", "Carto", "CSW", "EEDA", "Elasticsearch", "GDALG", "HTTP", "NGW", "OAPIF",
        "OGCAPI", "OGR_VRT", "PLSCENES", "WFS",
    }
)  # fmt: skip
# What GDAL takes a file of such a driver by; refused before it is opened.
_POINTING_MARKS = (b"<OGRVRTDataSource", b"<OGRWFSDataSource", b"gdal_streamed_alg", b"<GDAL_WMS", b"<OGRCSW")
_ARCHIVES = (".zip", ".kmz", ".gz", ".tgz", ".tar", ".7z", ".rar")
_PRESCRIBED = ("EPSG:4326", "OGC:CRS84")  # what GeoJSON is in when it does not say
_PIECES = 64  # nested collections beyond this are not taken apart


@dataclass(frozen=True)
class Polygons:
    """The polygons of a file, in its own coordinates.

    Attributes:
        shapes: shapely polygons, valid and not empty, ``(count,)``.
        crs: Their reference system (a rasterio CRS), or None.
        assumed_crs: Whether the system is one the format prescribes (GeoJSON) and may not be meant.
        notes: Sentences for the user.
    """

    shapes: NDArray[Any]
    crs: Any
    assumed_crs: bool
    notes: tuple[str, ...]


def read_polygons(path: str | os.PathLike[str], cancelled: Callable[[], bool] | None = None) -> Polygons:
    """Read all polygons of a file's first layer with geometry.

    Heights are left out, curves are made of short straight edges by the library,
    self-crossing polygons are repaired and told in a note.

    Args:
        path: A local vector file: GeoPackage, GeoJSON, Shapefile and whatever else GDAL reads.
        cancelled: Asked between batches whether to give up.

    Returns:
        The polygons.

    Raises:
        InputError: With a code of this module.
        CancelledError: ``cancelled`` said so.
    """
    file = _local_file(path)
    pyogrio.set_gdal_config_options(  # of this library's own GDAL, not of rasterio's
        {"CPL_VSIL_CURL_ALLOWED_FILENAME": "/none", "OGR_SQLITE_LOAD_EXTENSIONS": ""}
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is told by our own notes
            layer, notes = _layer(file)
            info = pyogrio.read_info(file, layer=layer)
            if info["driver"] in POINTING_DRIVERS:
                raise _pointing(file)
            if info["features"] > MAXIMUM_FEATURES:
                raise _too_large(file, f"{info['features']} features, and {MAXIMUM_FEATURES} can be read")
            shapes, left_out = _read(file, layer, cancelled)
    except (DataSourceError, DataLayerError) as error:
        raise InputError(
            "E_AOI_UNREADABLE",
            f"{file.name} is no vector file that can be read, or it is damaged ({_first_sentence(error)}).",
        ) from error
    if not len(shapes):
        raise InputError("E_AOI_EMPTY", f"{file.name} holds no polygon: an area is made of polygons.")
    if not (np.abs(shapely.get_coordinates(shapes)) < LARGEST_COORDINATE).all():
        raise InputError("E_AOI_UNREADABLE", f"{file.name} holds coordinates that are no place.")
    if left_out:
        notes.append(f"{left_out} of the area's shapes are no polygons: they are left out.")
    shapes, repaired = _repaired(shapes)
    if repaired:
        notes.append(f"{_polygons_text(repaired)} of the area crossed itself and was repaired.")
    if not len(shapes):
        raise InputError("E_AOI_EMPTY", f"The polygons of {file.name} have no surface.")
    prescribed = info["driver"] in ("GeoJSON", "GeoJSONSeq", "TopoJSON") and info["crs"] in _PRESCRIBED
    return Polygons(shapes, _crs(file, info["crs"]), prescribed, tuple(notes))


def _local_file(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path)
    if is_address(text):
        raise InputError("E_AOI_UNREADABLE", f"{text} is not a file of this computer: save the area to one.")
    if "\0" in text:
        raise InputError("E_AOI_MISSING", "The area's path holds a NUL character: there is no such file.")
    file = Path(text).absolute()
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(
                "E_AOI_UNREADABLE",
                f"{file} is not an ordinary file: name a vector file, such as a GeoPackage.",
            )
        with file.open("rb") as stream:
            head = stream.read(4096)
    except FileNotFoundError:
        raise InputError("E_AOI_MISSING", f"There is no file {file} with the area.") from None
    except OSError as error:
        raise InputError("E_AOI_UNREADABLE", f"{file} cannot be read: {error.strerror}.") from error
    if file.suffix.lower() in _ARCHIVES:
        raise InputError("E_AOI_UNREADABLE", f"{file.name} is an archive: unpack it first.")
    if any(mark in head for mark in _POINTING_MARKS):
        raise _pointing(file)
    if status.st_size > MAXIMUM_FILE:
        raise _too_large(file, f"{status.st_size / 1e6:,.0f} MB, and {MAXIMUM_FILE / 1e6:,.0f} can be read")
    return file


def _layer(file: Path) -> tuple[str, list[str]]:
    """The first layer that has geometry, and a note where there are others."""
    layers = [str(name) for name, kind in pyogrio.list_layers(file) if kind is not None]
    if not layers:
        raise InputError("E_AOI_EMPTY", f"{file.name} holds no layer with shapes.")
    if len(layers) == 1:
        return layers[0], []
    return layers[0], [f"{file.name} holds {len(layers)} layers: the first, {layers[0]}, is the area."]


def _read(file: Path, layer: str, cancelled: Callable[[], bool] | None) -> tuple[NDArray[Any], int]:
    """The polygons of all features, and how many other shapes there were."""
    found: list[NDArray[Any]] = []
    vertices = left_out = start = 0
    while True:
        if cancelled is not None and cancelled():
            raise CancelledError
        _, _, binary, _ = pyogrio.raw.read(
            file, layer=layer, columns=[], force_2d=True, skip_features=start, max_features=BATCH
        )
        shapes = shapely.from_wkb(binary, on_invalid="ignore")
        left_out += int(np.count_nonzero((shapes == None) & (binary != None)))  # noqa: E711  elementwise
        polygons, others = _polygons(shapes)
        left_out += others
        vertices += int(shapely.get_num_coordinates(polygons).sum())
        if vertices > MAXIMUM_VERTICES:
            raise _too_large(file, f"more than the {MAXIMUM_VERTICES} vertices that can be read")
        found.append(polygons)
        start += len(binary)
        if len(binary) < BATCH:
            return np.concatenate(found), left_out
        if start > MAXIMUM_FEATURES:
            raise _too_large(file, f"more than the {MAXIMUM_FEATURES} features that can be read")


def _polygons(shapes: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """The polygons inside shapes of any kind, and how many parts are none."""
    for _ in range(_PIECES):
        shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
        kinds = shapely.get_type_id(shapes)
        if not np.isin(kinds, (6, 7)).any():
            break
        shapes = shapely.get_parts(shapes)
    polygons = shapes[kinds == 3]
    return polygons, len(shapes) - len(polygons)


def _repaired(shapes: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Valid polygons with a surface, and how many had to be repaired."""
    broken = ~shapely.is_valid(shapes)
    if not broken.any():
        return shapes, 0
    mended, _ = _polygons(shapely.make_valid(shapes[broken], method="structure", keep_collapsed=False))
    return np.concatenate([shapes[~broken], mended]), int(np.count_nonzero(broken))


def _crs(file: Path, text: str | None) -> Any:
    if not text:
        return None
    try:
        with rasterio.Env():
            return rasterio.CRS.from_user_input(text)
    except CRSError as error:
        raise InputError(
            "E_AOI_UNREADABLE", f"The coordinate reference system of {file.name} cannot be understood."
        ) from error


def _pointing(file: Path) -> InputError:
    return InputError(
        "E_AOI_UNREADABLE",
        f"{file.name} only points to another file or a web service: save the area's polygons to a file.",
    )


def _first_sentence(error: Exception) -> str:
    """What the library says, without its advice to programmers."""
    return str(error).split("; It might help")[0].rstrip(".")[:200]


def _too_large(file: Path, what: str) -> InputError:
    return InputError(
        "E_AOI_TOO_LARGE",
        f"The area {file.name} has {what}: save the polygons that are needed to a file of their own, or "
        "simplify them.",
    )


def _polygons_text(count: int) -> str:
    return "1 polygon" if count == 1 else f"{count} polygons"
