"""Makers of small rasters with one peculiarity each, and of large scenes for benches."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

# Numbers without a short binary fraction: a transform that survives these survives.
NORTH_UP = Affine(0.1, 0.0, 523650.3, 0.0, -0.1, 5271000.7)
NON_SQUARE = Affine(1 / 3, 0.0, -0.7818936232976315, 0.0, -0.1234567890123, 51.5)
ROTATED = Affine(0.8660254037844386, -0.5, 1841001.75, -0.5000000000000001, -0.86602540378, 1144003.25)
SOUTH_UP = Affine(2.5, 0.0, 100.1, 0.0, 2.5, 200.2)


def ramp(bands: int, height: int, width: int, dtype: str = "uint8", seed: int = 1) -> NDArray[Any]:
    """Values without zeros, different in every band, row and column."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (generator.random((bands, height, width)) * 1000 + 1).astype(kind)
    top = min(int(np.iinfo(kind).max), 20_000)
    return generator.integers(1, top, (bands, height, width)).astype(kind)


def write_raster(
    path: Path,
    values: NDArray[Any],
    *,
    transform: Affine | None = NORTH_UP,
    crs: str | None = "EPSG:26910",
    alpha: bool = False,
    mask: NDArray[np.bool_] | None = None,
    mask_inside: bool = True,
    gcps: list[GroundControlPoint] | None = None,
    names: tuple[str, ...] = (),
    **profile: Any,
) -> Path:
    """Write ``values`` (bands, height, width) as GeoTIFF, or what ``driver`` says.

    Args:
        path: Where to write.
        values: Bands, height, width.
        transform: Pixel to map, None for none.
        crs: Reference system, None for none.
        alpha: Mark the last band as alpha.
        mask: Valid pixels, written as the dataset's mask.
        mask_inside: The mask goes into the file, else beside it as ``.msk``.
        gcps: Ground control points, in place of a transform.
        names: Band descriptions.
        **profile: More of rasterio's creation profile (nodata, tiled, driver, ...).
    """
    bands, height, width = values.shape
    options = {
        "driver": "GTiff",
        "count": bands,
        "height": height,
        "width": width,
        "dtype": values.dtype.name,
    }
    if transform is not None and gcps is None:
        options["transform"] = transform
    if crs is not None and gcps is None:
        options["crs"] = crs
    options.update(profile)
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=mask_inside):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **options) as dataset:
            if gcps is not None:
                dataset.gcps = (gcps, rasterio.CRS.from_user_input(crs))
            if alpha:
                others = [ColorInterp.gray] + [ColorInterp.undefined] * (bands - 2)
                dataset.colorinterp = (others if bands > 1 else []) + [ColorInterp.alpha]
            for index, name in enumerate(names, start=1):
                dataset.set_band_description(index, name)
            dataset.write(values)
            if mask is not None:
                dataset.write_mask(mask)
    return path


def control_points() -> list[GroundControlPoint]:
    """Four control points of a slightly turned image."""
    return [
        GroundControlPoint(row=0, col=0, x=500000.5, y=5000000.25),
        GroundControlPoint(row=0, col=40, x=500040.125, y=5000001.5),
        GroundControlPoint(row=30, col=0, x=499999.5, y=4999970.75),
        GroundControlPoint(row=30, col=40, x=500039.5, y=4999971.5),
    ]


def make_scene(
    path: Path, width: int, height: int, bands: int = 3, seed: int = 0, dtype: str = "uint8"
) -> Path:
    """Write a large tiled scene, stripe by stripe: fields of flat colour with fine texture.

    Every seed gives one scene; its content at a pixel does not depend on ``height``.

    Args:
        path: Where to write a GeoTIFF, 256 x 256 tiles, DEFLATE.
        width: Pixels in a row.
        height: Rows.
        bands: Number of bands.
        seed: Seed of fields and texture.
        dtype: Integer type.
    """
    tile, field = 256, 64
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": dtype, "tiled": True,
        "blockxsize": tile, "blockysize": tile, "compress": "deflate", "zlevel": 1, "crs": "EPSG:32633",
        "transform": Affine(0.5, 0.0, 400000.0, 0.0, -0.5, 5700000.0), "BIGTIFF": "IF_SAFER",
    }  # fmt: skip
    scale = 1 if np.dtype(dtype).itemsize == 1 else 40
    texture = np.random.default_rng(seed).integers(0, 12, (bands, tile, tile))
    columns = -(-width // tile)
    with rasterio.open(path, "w", **profile) as dataset:
        for stripe, row in enumerate(range(0, height, tile)):
            generator = np.random.default_rng((seed, stripe))
            fields = generator.integers(20, 230, (bands, tile // field, columns * tile // field))
            values = fields.repeat(field, axis=1).repeat(field, axis=2) + np.tile(texture, (1, 1, columns))
            rows = min(tile, height - row)
            dataset.write(
                (values[:, :rows, :width] * scale).astype(dtype), window=Window(0, row, width, rows)
            )
    return path
