"""Band statistics: valid pixels only, the same however the scene is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from rasters import makers
from rest_backend.errors import CancelledError
from rest_backend.rasters import band_statistics, open_scene


def numbers(path: Path, **options: int) -> tuple[list[float], list[float], float]:
    with open_scene(path) as scene:
        result = band_statistics(scene, **options)
    assert result.mean.dtype == result.std.dtype == np.float64
    return result.mean.tolist(), result.std.tolist(), result.valid_share


def test_a_small_scene_is_read_whole(tmp_path: Path) -> None:
    stored = makers.ramp(3, 300, 700, "uint16")
    path = makers.write_raster(tmp_path / "a.tif", stored)
    mean, std, share = numbers(path)
    np.testing.assert_allclose(mean, stored.mean(axis=(1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, stored.std(axis=(1, 2), dtype=np.float64), rtol=1e-12)
    assert share == 1.0


def test_large_offsets_keep_their_spread(tmp_path: Path) -> None:
    stored = (makers.ramp(1, 300, 300, "uint8").astype(np.int32) + 10_000_000).astype(np.int32)
    mean, std, _ = numbers(makers.write_raster(tmp_path / "a.tif", stored))
    np.testing.assert_allclose(mean, stored.mean(dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, stored.std(dtype=np.float64), rtol=1e-9)


def test_only_valid_pixels_count(tmp_path: Path) -> None:
    stored = makers.ramp(2, 200, 200, "float32")
    kept = np.ones((200, 200), dtype=bool)
    stored[:, :50] = -9999.0
    stored[0, 60, 60] = np.nan
    kept[:50] = False
    kept[60, 60] = False
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=-9999.0)
    mean, std, share = numbers(path)
    np.testing.assert_allclose(mean, stored[:, kept].mean(axis=1, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, stored[:, kept].std(axis=1, dtype=np.float64), rtol=1e-12)
    assert share == kept.mean()


def test_masks_and_alpha_keep_pixels_out(tmp_path: Path) -> None:
    stored = makers.ramp(2, 100, 100)
    mask = np.zeros((100, 100), dtype=bool)
    mask[20:70, 10:90] = True
    stored[:, ~mask] = 255
    expected = stored[0][mask].mean(dtype=np.float64)
    masked = makers.write_raster(tmp_path / "mask.tif", stored[:1], mask=mask)
    beside = makers.write_raster(tmp_path / "beside.tif", stored[:1], mask=mask, mask_inside=False)
    stored[1] = mask * 255
    alpha = makers.write_raster(tmp_path / "alpha.tif", stored, alpha=True)
    for path in (masked, beside, alpha):
        mean, _, share = numbers(path)
        np.testing.assert_allclose(mean, [expected], rtol=1e-12)
        assert share == mask.mean()


def test_a_sentinel_in_one_band_stays_out_of_that_band(tmp_path: Path) -> None:
    stored = makers.ramp(3, 50, 50, "int16")
    stored[1, :10] = -32768
    stored[2] = -32768
    mean, std, share = numbers(makers.write_raster(tmp_path / "a.tif", stored, nodata=-32768))
    np.testing.assert_allclose(mean[:2], [stored[0].mean(), stored[1, 10:].mean()], rtol=1e-12)
    np.testing.assert_allclose(std[1], stored[1, 10:].std(), rtol=1e-12)
    assert (mean[2], std[2], share) == (0.0, 1.0, 1.0)


def test_a_constant_band_has_spread_one(tmp_path: Path) -> None:
    stored = np.full((2, 300, 300), 0.1, dtype=np.float32)
    stored[1] = 7
    mean, std, _ = numbers(makers.write_raster(tmp_path / "a.tif", stored))
    assert std == [1.0, 1.0]
    np.testing.assert_allclose(mean, [np.float32(0.1), 7.0], rtol=1e-12)


def test_an_empty_scene_is_said_to_be_empty(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", np.zeros((2, 600, 600), dtype=np.uint8), nodata=0)
    with open_scene(path) as scene:
        result = band_statistics(scene, blocks=2)
    assert (result.mean.tolist(), result.std.tolist(), result.valid_share) == ([0.0, 0.0], [1.0, 1.0], 0.0)
    assert result.notes == ("The scene holds no valid pixel: the result is empty.",)


@pytest.mark.parametrize("seed", range(4))
def test_a_lone_valid_pixel_is_found(tmp_path: Path, seed: int) -> None:
    stored = np.zeros((1, 1100, 1100), dtype=np.uint8)
    stored[0, 1050, 400] = 42
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=0, compress="deflate")
    mean, std, share = numbers(path, seed=seed, blocks=3)
    assert (mean, std) == ([42.0], [1.0]) and 0 < share < 1e-5


def test_the_draw_follows_the_seed_and_not_the_file(tmp_path: Path) -> None:
    stored = np.cumsum(makers.ramp(3, 1300, 1500, "int16") % 7, axis=1).astype(np.int16)
    tiled = makers.write_raster(
        tmp_path / "tiled.tif", stored, tiled=True, blockxsize=128, blockysize=128, compress="deflate"
    )
    striped = makers.write_raster(tmp_path / "striped.tif", stored, interleave="pixel")
    overviews = makers.write_raster(tmp_path / "overviews.tif", stored, tiled=True)
    with rasterio.open(overviews, "r+") as dataset:
        dataset.build_overviews([2, 4, 8], Resampling.average)
    first = numbers(tiled, seed=3, blocks=6)
    assert numbers(tiled, seed=3, blocks=6) == first
    assert numbers(striped, seed=3, blocks=6) == first
    assert numbers(overviews, seed=3, blocks=6) == first
    assert numbers(tiled, seed=4, blocks=6) != first
    many = numbers(tiled, blocks=25)[0]  # of 30
    np.testing.assert_allclose(many, stored.mean(axis=(1, 2)), rtol=0.2)


def test_many_bands_are_read_in_thinner_windows(tmp_path: Path) -> None:
    stored = makers.ramp(300, 70, 90, "int16")
    mean, std, _ = numbers(makers.write_raster(tmp_path / "a.tif", stored))
    np.testing.assert_allclose(mean, stored.mean(axis=(1, 2), dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, stored.std(axis=(1, 2), dtype=np.float64), rtol=1e-12)


def test_it_can_be_given_up(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 600, 600))
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    with open_scene(path) as scene, pytest.raises(CancelledError):
        band_statistics(scene, cancelled=cancelled)
    assert len(asked) == 3


def test_fill_that_no_nodata_value_declares_is_told(shared_data: Path) -> None:
    """A real Landsat scene whose corner is 0 without a nodata tag."""
    with open_scene(shared_data / "multispectral" / "landsat8_itaipu_b2b3b4.tif") as scene:
        result = band_statistics(scene)
    assert result.valid_share == 1.0
    assert len(result.notes) == 1 and "is 0 in every band" in result.notes[0]


def test_real_scenes_without_such_fill_are_not(shared_data: Path) -> None:
    for name in ("building_kitsap/kitsap_rgb.tif", "sar_optical_flood/spain_s1_vv_vh.tif"):
        with open_scene(shared_data / name) as scene:
            result = band_statistics(scene, blocks=16)
        assert result.notes == () and np.isfinite(result.mean).all() and (result.std > 0).all()
