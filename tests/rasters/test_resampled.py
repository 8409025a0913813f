"""Scenes at another size: averages of what is valid, the same however windows are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from rest_backend.errors import InputError
from rest_backend.rasters import resampled as module
from rest_backend.rasters.resampled import ResampledScene, resampled
from rest_backend.rasters.scene import open_scene
from rest_backend.rasters.statistics import band_statistics
from tests.rasters.makers import NORTH_UP, ROTATED, ramp, write_raster


def whole(scene: ResampledScene) -> NDArray[np.float32]:
    """All values, NaN where nothing was measured."""
    values, valid, present = scene.read_present(0, scene.height)
    values[:, ~valid] = np.nan
    if present is not None:
        values[~present] = np.nan
    return values


def area_averages(values: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """The definition: each pixel's share of each new pixel, without those that are NaN."""

    def shares(size: int, count: int) -> NDArray[np.float64]:
        ratio = size / count
        begins, ends = np.arange(count) * ratio, np.arange(1, count + 1) * ratio
        pixels = np.arange(size)
        return np.clip(np.minimum(ends[:, None], pixels + 1) - np.maximum(begins[:, None], pixels), 0, None)

    down, across = shares(values.shape[1], height), shares(values.shape[2], width)
    there = np.isfinite(values)
    total = down @ np.where(there, values, 0) @ across.T
    weight = down @ there.astype(float) @ across.T
    with np.errstate(invalid="ignore"):
        return np.where(weight > 1e-9, total / weight, np.nan)


@pytest.mark.parametrize("size", [(100, 75), (301, 299), (77, 33), (1, 1), (599, 400), (64, 700)])
def test_smaller_scenes_are_area_averages(tmp_path: Path, size: tuple[int, int]) -> None:
    values = ramp(2, 400, 600, "uint16")
    with open_scene(write_raster(tmp_path / "scene.tif", values)) as scene:
        small = resampled(scene, size[0], min(size[1], 400))
        expected = area_averages(values.astype(float), small.height, small.width)
        np.testing.assert_allclose(whole(small), expected, rtol=2e-5)


def test_missing_pixels_are_kept_out_of_the_average(tmp_path: Path) -> None:
    values = ramp(3, 200, 300, "int16")
    hidden = np.random.default_rng(0).random((200, 300)) < 0.4
    hidden[50:120, 40:160] = True  # some new pixels have nothing under them
    alone = np.random.default_rng(1).random((200, 300)) < 0.2  # missing in one band only
    values[:, hidden] = -9999
    values[1, alone] = -9999
    with open_scene(write_raster(tmp_path / "scene.tif", values, nodata=-9999)) as scene:
        small = resampled(scene, 91, 67)
        exact = values.astype(float)
        exact[values == -9999] = np.nan
        expected = area_averages(exact, 67, 91)
        found = whole(small)
        # Where less than 1e-4 of a pixel is there, GDAL may leave it out.
        both = np.isfinite(found) & np.isfinite(expected)
        np.testing.assert_allclose(found[both], expected[both], rtol=2e-5)
        assert (np.isfinite(found) != np.isfinite(expected)).mean() < 0.001
        _, valid = small.read(0, 67)
        assert not valid.all()
        assert valid.any()


def test_a_band_that_is_nodata_where_others_are_not_stays_a_value(tmp_path: Path) -> None:
    """0 in one band of an unsigned scene is a shadow, as in the scene itself."""
    values = ramp(2, 64, 64)
    values[0] = 0
    with open_scene(write_raster(tmp_path / "scene.tif", values, nodata=0)) as scene:
        found, valid, present = resampled(scene, 16, 16).read_present(0, 16)
        assert valid.all()
        assert present is None
        assert (found[0] == 0).all()


def test_a_mask_hides_pixels(tmp_path: Path) -> None:
    values = np.full((1, 100, 100), 10, dtype=np.uint8)
    values[0, :, 50:] = 200
    mask = np.zeros((100, 100), dtype=bool)
    mask[:, :51] = True
    with open_scene(write_raster(tmp_path / "scene.tif", values, mask=mask)) as scene:
        found, valid = resampled(scene, 50, 50).read(0, 50)
        assert valid[:, :26].all()
        assert not valid[:, 26:].any()
        assert (found[0, :, :25] == 10).all()
        assert (found[0, :, 25] == 200).all()


@pytest.mark.parametrize("size", [(150, 100), (431, 283), (2000, 90)])
def test_larger_scenes_are_interpolated(tmp_path: Path, size: tuple[int, int]) -> None:
    values = ramp(2, 60, 90, "uint16")
    path = write_raster(tmp_path / "scene.tif", values)
    with open_scene(path) as scene, rasterio.open(path) as dataset:
        large = resampled(scene, *size)
        expected = dataset.read(
            out_shape=(2, size[1], size[0]), resampling=Resampling.bilinear, out_dtype="float32"
        )
        # GDAL rounds to the stored type when it reads the file itself.
        np.testing.assert_allclose(whole(large), expected, atol=0.51)


@pytest.mark.parametrize(("width", "height"), [(700, 200), (2600, 333), (171, 49)])
def test_pixels_are_the_same_however_windows_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    values = ramp(3, 231, 1300, "int16")
    values[:, 100:140, 300:900] = -1
    monkeypatch.setattr(module, "TILE_BYTES", 1300 * 3 * 4 * 40)  # few rows a tile
    with open_scene(write_raster(tmp_path / "scene.tif", values, nodata=-1)) as scene:
        small = resampled(scene, width, height)
        once = whole(small)
        for rows in (1, 7, 64, height):
            for columns in (width, 101, 512):
                other = resampled(scene, width, height)
                for row in list(range(0, height, rows))[:: max(1, 30 // rows)]:
                    high = min(rows, height - row)
                    for column in range(0, width, columns):
                        wide = min(columns, width - column)
                        found, valid, present = other.read_present(row, high, column, wide)
                        expected = once[:, row : row + high, column : column + wide]
                        measured = np.isfinite(expected)
                        assert np.array_equal(valid, measured.any(axis=0))
                        assert np.array_equal(found, np.where(measured, expected, 0))
                        assert present is None or np.array_equal(present, measured)


def test_overviews_are_not_read(tmp_path: Path) -> None:
    values = ramp(1, 512, 512)
    path = write_raster(tmp_path / "scene.tif", values, tiled=True, blockxsize=256, blockysize=256)
    with open_scene(path) as scene:
        expected = whole(resampled(scene, 128, 128))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.nearest)
    with open_scene(path) as scene:
        assert np.array_equal(whole(resampled(scene, 128, 128)), expected)


def test_scale_and_offset_are_applied(tmp_path: Path) -> None:
    values = ramp(1, 64, 64, "uint16")
    path = write_raster(tmp_path / "scene.tif", values)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (0.0001,), (-0.1,)
    with open_scene(path) as scene:
        expected = area_averages(values * 0.0001 - 0.1, 16, 16)
        np.testing.assert_allclose(whole(resampled(scene, 16, 16)), expected, rtol=1e-4, atol=1e-6)


def test_statistics_of_a_smaller_scene(tmp_path: Path) -> None:
    values = np.repeat(np.repeat(ramp(2, 150, 200), 4, axis=1), 4, axis=2)
    with open_scene(write_raster(tmp_path / "scene.tif", values)) as scene:
        found = band_statistics(resampled(scene, 200, 150))
        np.testing.assert_allclose(found.mean, values.mean(axis=(1, 2)), rtol=1e-6)
        np.testing.assert_allclose(found.std, values.std(axis=(1, 2)), rtol=1e-6)
        assert found.valid_share == 1


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_what_a_scene_tells(tmp_path: Path, transform: Affine) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 40, 60, "uint16"), transform=transform, nodata=7)
    with open_scene(path, bands=[3, 1]) as scene:
        small = resampled(scene, 30, 10)
        assert (small.width, small.height, small.count, small.bands) == (30, 10, 2, (3, 1))
        assert (small.path, small.crs, small.georeferenced) == (scene.path, scene.crs, True)
        assert (small.dtypes, small.nodata, small.masked) == (("uint16",) * 2, (7, 7), True)
        a, b, c, d, e, f = small.transform[:6]
        for column, row in ((0, 0), (30, 10)):
            here = a * column + b * row + c, d * column + e * row + f
            g = transform[:6]
            x, y = column * 2, row * 4
            there = g[0] * x + g[1] * y + g[2], g[3] * x + g[4] * y + g[5]
            np.testing.assert_allclose(here, there, rtol=1e-12)
        assert small.held_bytes > 0


def test_windows_that_leave_the_grid(tmp_path: Path) -> None:
    with open_scene(write_raster(tmp_path / "scene.tif", ramp(1, 40, 60))) as scene:
        small = resampled(scene, 30, 20)
        for window in [(0, 21), (-1, 3), (0, 0), (0, 5, 25, 6), (0, 5, -1, 3)]:
            with pytest.raises(ValueError, match="leaves the scene of 30 x 20"):
                small.read(*window)
        for size in [(0, 5), (5, -1)]:
            with pytest.raises(ValueError, match="cannot have"):
                resampled(scene, *size)


def test_a_damaged_scene(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 400, 400), tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[:60_000])
    with open_scene(path) as scene, pytest.raises(InputError) as failed:
        resampled(scene, 100, 100).read(0, 100)
    assert failed.value.code == "E_SCENE_DAMAGED"
