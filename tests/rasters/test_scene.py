"""Reading: values, valid pixels, georeferencing, overviews."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling

from rasters import makers
from rest_backend.rasters import open_scene

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
def test_windows_hold_the_stored_values(tmp_path: Path, dtype: str) -> None:
    stored = makers.ramp(3, 37, 53, dtype)
    path = makers.write_raster(tmp_path / "a.tif", stored, tiled=True, blockxsize=16, blockysize=16)
    with open_scene(path) as scene:
        assert (scene.width, scene.height, scene.count) == (53, 37, 3)
        assert scene.dtypes == (dtype,) * 3
        values, valid = scene.read(0, 37)
        part, part_valid = scene.read(5, 20, 7, 30)
    assert values.dtype == np.float32 and valid.dtype == np.bool_
    np.testing.assert_array_equal(values, stored.astype(np.float32))
    np.testing.assert_array_equal(part, values[:, 5:25, 7:37])
    assert valid.shape == (37, 53) and valid.all() and part_valid.shape == (20, 30)


def test_bands_in_the_order_asked_for_and_repeated(tmp_path: Path) -> None:
    stored = makers.ramp(4, 9, 11, "uint16")
    path = makers.write_raster(tmp_path / "a.tif", stored, names=("blue", "green", "red"))
    with open_scene(path, bands=(3, 1, 1)) as scene:
        assert scene.band_names == ("red", "blue", "blue")
        values, _ = scene.read(0, 9)
    np.testing.assert_array_equal(values, stored[[2, 0, 0]])
    with open_scene(path) as scene:
        assert scene.band_names == ("blue", "green", "red", "Band 4")


def test_many_bands(tmp_path: Path) -> None:
    stored = makers.ramp(224, 8, 8, "int16")
    path = makers.write_raster(tmp_path / "a.tif", stored, interleave="pixel")
    with open_scene(path) as scene:
        values, _ = scene.read(2, 3)
    np.testing.assert_array_equal(values, stored[:, 2:5])


def test_one_pixel(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", np.full((1, 1, 1), 7, dtype=np.uint8))
    with open_scene(path) as scene:
        values, valid = scene.read(0, 1)
    assert values.tolist() == [[[7.0]]] and valid.tolist() == [[True]]


@pytest.mark.parametrize("window", [(-1, 2, 0, 3), (0, 0, 0, 3), (8, 3, 0, 3), (0, 3, 9, 3), (0, 3, 0, 0)])
def test_a_window_beyond_the_scene_is_refused(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 10, 10))
    with open_scene(path) as scene, pytest.raises(ValueError, match="leaves the scene"):
        scene.read(*window)


def test_bands_of_different_types(tmp_path: Path) -> None:
    first, second = makers.ramp(1, 12, 12, "uint8"), makers.ramp(1, 12, 12, "float32")
    makers.write_raster(tmp_path / "first.tif", first)
    makers.write_raster(tmp_path / "second.tif", second)
    path = tmp_path / "both.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{index}"><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{name}</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for index, (dtype, name) in enumerate([("Byte", "first.tif"), ("Float32", "second.tif")], start=1)
    )
    path.write_text(f'<VRTDataset rasterXSize="12" rasterYSize="12">{bands}</VRTDataset>')
    with open_scene(path) as scene:
        assert scene.dtypes == ("uint8", "float32")
        values, _ = scene.read(0, 12)
    np.testing.assert_array_equal(values, np.concatenate([first, second]))


def test_overviews_change_no_pixel(tmp_path: Path) -> None:
    stored = makers.ramp(2, 600, 500, "uint16")
    for sidecar in (False, True):
        path = makers.write_raster(
            tmp_path / f"{sidecar}.tif", stored, tiled=True, blockxsize=64, blockysize=64
        )
        with rasterio.Env(TIFF_USE_OVR=sidecar), rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4, 8], Resampling.average)
            assert dataset.overviews(1) == [2, 4, 8]
        assert path.with_name(path.name + ".ovr").exists() == sidecar
        with open_scene(path) as scene:
            values, valid = scene.read(0, 600)
        np.testing.assert_array_equal(values, stored)
        assert valid.all()


def test_an_overview_that_names_another_file_is_never_read(tmp_path: Path) -> None:
    """A TIFF's own metadata may point its overviews at any file; only overviews follow it."""
    stored = makers.ramp(1, 64, 64)
    makers.write_raster(tmp_path / "secret.tif", np.full((1, 32, 32), 99, dtype=np.uint8))
    path = makers.write_raster(tmp_path / "a.tif", stored)
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "secret.tif"))
    with open_scene(path) as scene:
        values, _ = scene.read(0, 64)
    np.testing.assert_array_equal(values, stored)


# --- valid pixels -------------------------------------------------------------


def test_nodata_needs_every_chosen_band(tmp_path: Path) -> None:
    stored = makers.ramp(3, 10, 10)
    stored[:, 0] = 0  # empty
    stored[0, 1] = 0  # a deep shadow
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=0)
    with open_scene(path) as scene:
        values, valid = scene.read(0, 10)
        assert scene.nodata == (0.0, 0.0, 0.0) and scene.masked
    assert not valid[0].any() and valid[1:].all()
    np.testing.assert_array_equal(values, stored)
    with open_scene(path, bands=[1]) as scene:
        _, valid = scene.read(0, 10)
    assert not valid[:2].any() and valid[2:].all()


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", -32768), ("float32", -9999.0), ("float64", -1.7e308)]
)
def test_a_sentinel_in_some_bands_is_no_measurement(tmp_path: Path, dtype: str, nodata: float) -> None:
    stored = makers.ramp(3, 10, 10, dtype)
    stored[:, 0] = nodata
    stored[2, 1] = nodata
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=nodata)
    with open_scene(path) as scene:
        values, valid, present = scene.read_present(0, 10)
    assert not valid[0].any() and valid[1:].all()
    assert not values[:, 0].any() and not values[2, 1].any()
    np.testing.assert_array_equal(values[:, 2:], stored[:, 2:].astype(np.float32))
    np.testing.assert_array_equal(values[:2, 1], stored[:2, 1].astype(np.float32))
    assert present is not None and not present[2, 1].any() and present[:, 2:].all()


def test_saturated_pixels_of_unsigned_bands_stay_as_they_are(tmp_path: Path) -> None:
    stored = np.minimum(makers.ramp(3, 10, 10), 250)
    stored[0, 4] = 255
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=255)
    with open_scene(path) as scene:
        values, valid, present = scene.read_present(0, 10)
    np.testing.assert_array_equal(values, stored)
    assert valid.all() and present is None


def test_nan_and_infinity_in_one_band_are_enough(tmp_path: Path) -> None:
    stored = makers.ramp(2, 6, 6, "float64")
    stored[0, 0, 0], stored[1, 1, 1], stored[1, 2, 2] = np.nan, np.inf, 1e300  # the last overflows float32
    path = makers.write_raster(tmp_path / "a.tif", stored, nodata=np.nan)
    with open_scene(path) as scene:
        values, valid = scene.read(0, 6)
    assert np.argwhere(~valid).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert np.isfinite(values).all() and not values[:, ~valid].any()


def test_an_alpha_band_masks_and_is_no_data(tmp_path: Path) -> None:
    stored = makers.ramp(4, 8, 8)
    stored[3] = 255
    stored[3, 2:4] = 0
    stored[3, 5] = 1  # nearly transparent is not absent
    path = makers.write_raster(tmp_path / "a.tif", stored, alpha=True)
    with open_scene(path) as scene:
        assert scene.count == 3 and scene.bands == (1, 2, 3)
        values, valid = scene.read(0, 8)
    expected = stored[3] > 0
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(values, stored[:3] * expected)
    with open_scene(path, bands=[4, 1]) as scene:  # asked for: data
        values, valid = scene.read(0, 8)
        assert any("alpha band" in note for note in scene.notes)
    np.testing.assert_array_equal(values, stored[[3, 0]])
    assert valid.all()


@pytest.mark.parametrize("inside", [True, False])
def test_a_dataset_mask_inside_or_beside_the_file(tmp_path: Path, inside: bool) -> None:
    stored = makers.ramp(3, 20, 20)
    mask = makers.ramp(1, 20, 20, seed=5)[0] > 90
    path = makers.write_raster(tmp_path / "a.tif", stored, mask=mask, mask_inside=inside)
    assert path.with_name("a.tif.msk").exists() != inside
    with open_scene(path) as scene:
        values, valid = scene.read(3, 10, 4, 12)
    np.testing.assert_array_equal(valid, mask[3:13, 4:16])
    np.testing.assert_array_equal(values, (stored * mask)[:, 3:13, 4:16])


def test_side_files_are_read(tmp_path: Path) -> None:
    stored = makers.ramp(1, 5, 5)
    stored[0, 0] = 77
    path = makers.write_raster(tmp_path / "a.png", stored, transform=None, crs=None, driver="PNG")
    (tmp_path / "a.pgw").write_text("0.5\n0\n0\n-0.5\n100.25\n200.75\n")
    path.with_name("a.png.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>77</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    with open_scene(path) as scene:
        _, valid = scene.read(0, 5)
        assert scene.transform[:6] == (0.5, 0.0, 100.0, 0.0, -0.5, 201.0)
    assert not valid[0].any() and valid[1:].all()


def test_a_nodata_value_the_type_cannot_hold_hides_nothing(tmp_path: Path) -> None:
    path = makers.write_raster(
        tmp_path / "a.png", makers.ramp(1, 5, 5), transform=None, crs=None, driver="PNG"
    )
    path.with_name("a.png.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    with open_scene(path) as scene:
        _, valid = scene.read(0, 5)
    assert valid.all()


# --- georeferencing -------------------------------------------------------------


@pytest.mark.parametrize(
    "transform", [makers.NORTH_UP, makers.NON_SQUARE, makers.ROTATED, makers.SOUTH_UP], ids=str
)
def test_the_transform_is_carried_bit_for_bit(tmp_path: Path, transform: object) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 5, 5), transform=transform)  # type: ignore[arg-type]
    with open_scene(path) as scene:
        assert scene.transform == transform
        assert scene.georeferenced and scene.crs.to_epsg() == 26910 and scene.notes == []


def test_no_georeferencing_is_said_and_is_no_garbage(tmp_path: Path) -> None:
    """GDAL leaves the transform unset on a handle without overviews; ours must not come from it."""
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 5, 5), transform=None, crs=None)
    with open_scene(path) as scene:
        assert scene.transform == rasterio.Affine.identity() and not scene.georeferenced
        assert scene.crs is None
        assert "The scene has no coordinate reference system: the result has none either." in scene.notes


def test_control_points(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(1, 30, 40), gcps=makers.control_points())
    with open_scene(path) as scene:
        assert [(p.row, p.col, p.x, p.y) for p in scene.gcps] == [
            (p.row, p.col, p.x, p.y) for p in makers.control_points()
        ]
        assert scene.gcp_crs.to_epsg() == 26910 and not scene.georeferenced
        assert len(scene.notes) == 1 and "ground control points" in scene.notes[0]


# --- what reading costs and leaves ------------------------------------------------


def test_reading_leaves_nothing_beside_the_scene(tmp_path: Path) -> None:
    path = makers.write_raster(tmp_path / "a.tif", makers.ramp(3, 50, 50), nodata=0)
    before = {entry.name: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()}
    with open_scene(path) as scene:
        scene.read(0, 50)
    assert {entry.name: entry.stat().st_mtime_ns for entry in tmp_path.iterdir()} == before


MEASURE = """
import re, sys
from rest_backend.rasters import open_scene
with open_scene(sys.argv[1]) as scene:
    for row in range(0, scene.height, 128):
        scene.read(row, min(128, scene.height - row))
# Not ru_maxrss: Linux hands that of the parent on to a child, and pytest has grown by then.
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read()).group(1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is asked for the Linux way")
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    peaks = []
    for height in (8192, 16384):
        path = makers.make_scene(tmp_path / f"{height}.tif", 4096, height)
        command = [sys.executable, "-c", MEASURE, str(path)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GDAL_")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peaks.append(int(done.stdout) * 1024)  # Linux counts KiB
    assert peaks[1] < peaks[0] * 1.05
    assert peaks[1] < 300e6  # the scene is 201 MB beside what Python and GDAL take


# --- real files -------------------------------------------------------------------


def test_real_rotated_scene(shared_data: Path) -> None:
    path = shared_data / "multispectral" / "rotated_geotransform_20x20.tif"
    with open_scene(path) as scene, rasterio.open(path) as plain:
        assert scene.transform == plain.transform and scene.transform.b != 0
        np.testing.assert_array_equal(scene.read(0, 20)[0], plain.read())


def test_real_radar_scene_with_nan(shared_data: Path) -> None:
    path = shared_data / "sar_optical_flood" / "spain_s1_vv_vh.tif"
    with open_scene(path) as scene, rasterio.open(path) as plain:
        values, valid = scene.read(0, 512)
        stored = plain.read()
    np.testing.assert_array_equal(valid, np.isfinite(stored).all(axis=0))
    np.testing.assert_array_equal(values, np.where(valid, stored, 0))


def test_real_hyperspectral_scene_with_bands_of_nothing(shared_data: Path) -> None:
    path = shared_data / "hyperspectral" / "enmap_potsdam_224band.tif"
    with open_scene(path) as scene, rasterio.open(path) as plain:
        values, valid = scene.read(0, 192)
        stored = plain.read()
    np.testing.assert_array_equal(valid, (stored != -32768).any(axis=0))
    assert 0 < valid.mean() < 1
    assert values.min() > -32768  # the six empty bands read as 0
