"""Ground resolution in metres, whatever the reference system counts in."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from affine import Affine

from rest_backend.rasters.resolution import ground_resolution
from rest_backend.rasters.scene import open_scene
from tests.rasters.makers import control_points, ramp, write_raster

DATA = Path(__file__).parents[3] / "shared" / "data"
FEET = 1200 / 3937  # US survey foot
DEGREE = 111_320  # metres on the equator


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32633", Affine(0.3, 0, 400_000, 0, -0.3, 5_700_000), 0.3),
        ("EPSG:32633", Affine(10, 0, 400_000, 0, 10, 5_700_000), 10),  # south up
        ("EPSG:32633", Affine(1.6, 1.2, 400_000, 1.2, -1.6, 5_700_000), 2),
        ("EPSG:32633", Affine(2, 0, 400_000, 0, -8, 5_700_000), 4),  # not square: a square of its area
        ("EPSG:2263", Affine(1, 0, 980_000, 0, -1, 200_000), FEET),
        ("EPSG:3857", Affine(10, 0, 1_500_000, 0, -10, 8_399_737.9), 10 * math.cos(math.radians(60))),
        ("EPSG:3857", Affine(10, 0, 0, 0, -10, 0), 10),
        ("EPSG:4326", Affine(0.001, 0, 15, 0, -0.001, 0), 0.001 * DEGREE),
        ("EPSG:4326", Affine(0.001, 0, 15, 0, -0.001, 60), 0.001 * DEGREE * math.sqrt(0.5)),
        ("EPSG:4326", Affine(0.001, 0, 179.99, 0, -0.001, 0), 0.001 * DEGREE),  # across the date line
        ("EPSG:3413", Affine(100, 0, -2000, 0, -100, 1500), 102.9),  # at the pole; true at 70 degrees north
    ],
)
def test_metres_on_the_ground(tmp_path: Path, crs: str, transform: Affine, metres: float) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 30, 40), transform=transform, crs=crs)
    with open_scene(path) as scene:
        assert ground_resolution(scene) == pytest.approx(metres, rel=0.008)


def test_a_local_system_has_no_place_on_the_earth(tmp_path: Path) -> None:
    local = 'LOCAL_CS["site",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
    path = write_raster(
        tmp_path / "scene.tif", ramp(1, 30, 40), crs=local, transform=Affine(2, 0, 0, 0, -2, 0)
    )
    with open_scene(path) as scene:
        assert ground_resolution(scene) is None


@pytest.mark.parametrize(
    ("transform", "crs"), [(None, None), (None, "EPSG:32633"), (Affine(2, 0, 0, 0, -2, 0), None)]
)
def test_nothing_to_measure_by(tmp_path: Path, transform: Affine | None, crs: str | None) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 30, 40), transform=transform, crs=crs)
    with open_scene(path) as scene:
        assert ground_resolution(scene) is None


@pytest.mark.parametrize("transform", [Affine(1e9, 0, 1e12, 0, -1e9, 1e12), Affine(0, 0, 4e5, 0, 0, 5e6)])
def test_places_that_are_none(tmp_path: Path, transform: Affine) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 30, 40), transform=transform, crs="EPSG:32633")
    with open_scene(path) as scene:
        assert ground_resolution(scene) is None


def test_control_points_place_a_scene_too(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 30, 40), gcps=control_points(), crs="EPSG:32633")
    with open_scene(path) as scene:
        assert ground_resolution(scene) == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize(
    ("name", "metres"),
    [
        ("building_kitsap/kitsap_rgb.tif", 0.3),
        ("sar_optical_flood/spain_s2_13band.tif", 8.86),  # 10 m on the equator
        ("multispectral/landsat7_olinda_6band.tif", 28.5),
        ("multispectral/rotated_geotransform_20x20.tif", None),
    ],
)
def test_real_scenes(name: str, metres: float | None) -> None:
    if not (DATA / name).exists():
        pytest.skip("the sample data is not here")
    with open_scene(DATA / name) as scene:
        found = ground_resolution(scene)
    assert found is not None
    if metres is not None:
        assert found == pytest.approx(metres, rel=0.01)
