"""Scale and offset that a raster declares are applied; nodata is compared as stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from rest_backend.rasters.scene import open_scene
from rest_backend.rasters.statistics import band_statistics
from tests.rasters.makers import ramp, write_raster

DATA = Path(__file__).parents[3] / "shared" / "data"


def declare(path: Path, scales: tuple[float, ...], offsets: tuple[float, ...]) -> Path:
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = scales, offsets
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_values_are_what_they_mean(tmp_path: Path, dtype: str) -> None:
    stored = ramp(3, 20, 30, dtype)
    path = declare(write_raster(tmp_path / "scene.tif", stored), (0.0001, 1.0, 2.75e-05), (-0.1, 0.0, -0.2))
    with open_scene(path, bands=[3, 1, 2]) as scene:
        assert scene.scales == (2.75e-05, 0.0001, 1.0)
        assert scene.offsets == (-0.2, -0.1, 0.0)
        values, valid = scene.read(3, 11, 4, 20)
        assert values.dtype == np.float32
        assert valid.all()
        part = stored[[2, 0, 1], 3:14, 4:24].astype(np.float64)
        factors, offsets = np.reshape(scene.scales, (3, 1, 1)), np.reshape(scene.offsets, (3, 1, 1))
        np.testing.assert_allclose(values, part * factors + offsets, rtol=1e-6, atol=1e-7)
        assert scene.notes == []


def test_without_a_declaration_values_are_as_stored(tmp_path: Path) -> None:
    stored = ramp(2, 20, 30, "uint16")
    with open_scene(write_raster(tmp_path / "scene.tif", stored)) as scene:
        assert (scene.scales, scene.offsets) == ((1.0, 1.0), (0.0, 0.0))
        assert np.array_equal(scene.read(0, 20)[0], stored.astype(np.float32))


def test_nodata_is_compared_as_stored(tmp_path: Path) -> None:
    stored = ramp(2, 20, 30, "int16")
    stored[:, :5] = -9999
    stored[0, 10] = -9999  # in one band only: no measurement there
    path = declare(write_raster(tmp_path / "scene.tif", stored, nodata=-9999), (0.01, 0.01), (5.0, 5.0))
    with open_scene(path) as scene:
        values, valid, present = scene.read_present(0, 20)
        assert scene.nodata == (-9999, -9999)
        assert not valid[:5].any()
        assert valid[5:].all()
        assert (values[:, :5] == 0).all()
        assert present is not None
        assert not present[0, 10].any()
        assert present[1, 10].all()
        statistics = band_statistics(scene)
    expected = stored[1, 5:].astype(float) * 0.01 + 5
    assert statistics.mean[1] == pytest.approx(expected.mean(), rel=1e-6)
    assert statistics.std[1] == pytest.approx(expected.std(), rel=1e-5)
    first = np.delete(stored[0], 10, axis=0)[5:].astype(float) * 0.01 + 5
    assert statistics.mean[0] == pytest.approx(first.mean(), rel=1e-6)


def test_undeclared_fill_is_told_whatever_the_offset(tmp_path: Path) -> None:
    stored = ramp(2, 64, 64, "uint16")
    stored[:, :32] = 0
    path = declare(write_raster(tmp_path / "scene.tif", stored), (0.0001, 0.0002), (-0.1, 0.3))
    with open_scene(path) as scene:
        (note,) = band_statistics(scene).notes
    assert "About 50% of the scene is 0 in every band" in note


@pytest.mark.parametrize(
    ("scale", "offset"), [(0.0, 0.0), (float("nan"), 1.0), (float("inf"), 0.0), (1.0, float("nan"))]
)
def test_what_cannot_be_meant_is_not_applied_and_told(tmp_path: Path, scale: float, offset: float) -> None:
    stored = ramp(1, 20, 30)
    virtual = tmp_path / "scene.vrt"
    write_raster(tmp_path / "stored.tif", stored)
    virtual.write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1">'
        f"<Scale>{scale}</Scale><Offset>{offset}</Offset><SimpleSource>"
        '<SourceFilename relativeToVRT="1">stored.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with open_scene(virtual) as scene:
        expected = stored + (offset if np.isfinite(offset) else 0)
        assert np.array_equal(scene.read(0, 20)[0], expected.astype(np.float32))
        assert sum("cannot be meant" in note for note in scene.notes) == 1


def test_values_that_overflow_are_no_data(tmp_path: Path) -> None:
    stored = np.full((1, 4, 4), 20_000, dtype=np.uint16)
    stored[0, 0] = 1
    path = declare(write_raster(tmp_path / "scene.tif", stored), (1e36,), (0.0,))
    with open_scene(path) as scene:
        values, valid = scene.read(0, 4)
    assert valid[0].all()
    assert not valid[1:].any()
    assert np.isfinite(values).all()


def test_a_real_hyperspectral_scene_is_read_as_reflectance() -> None:
    path = DATA / "hyperspectral" / "enmap_potsdam_224band.tif"
    if not path.exists():
        pytest.skip("the sample data is not here")
    with rasterio.open(path) as dataset, open_scene(path, bands=[44]) as scene:
        stored = dataset.read(44).astype(float)
        values, valid = scene.read(0, scene.height)
    assert scene.scales == (0.0001,)
    assert np.array_equal(valid, stored != -32768)
    np.testing.assert_allclose(values[0][valid], stored[valid] * 0.0001, rtol=1e-6)
