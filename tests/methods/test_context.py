"""Crop-invariance: inside a window or an area, the classes are those of the whole scene's run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from rasterio.windows import Window

from rest_backend.bundled import bundled_folder
from rest_backend.methods.context import choose_context
from rest_backend.methods.grid import RunGrid
from rest_backend.methods.segment import SegmentProgress, SegmentRequest, segment
from rest_backend.methods.statistics_cache import scene_statistics
from rest_backend.models.zoo import find_model
from rest_backend.rasters.scene import open_scene
from rest_backend.rasters.statistics import BandStatistics
from tests.methods.conftest import make_model
from tests.rasters.makers import ramp, write_raster

MODEL = "kitsap-buildings"
SIZE = 1536  # pixels of the scene's sides: the network looks about 520 pixels far
EXTENTS = {
    "inside": (603, 621, 211, 157),
    "top left": (0, 0, 300, 200),
    "bottom right": (1203, 1315, 333, 221),
    "right": (1376, 850, 160, 128),
    "bottom": (100, 1476, 170, 60),
}
POLYGON = [(640.3, 610.7), (900.2, 604.6), (955.5, 780.4), (810.1, 740.8), (741.3, 852.2)]  # pixels
TURNED = Affine.translation(500_000.0, 5_200_000.0) @ Affine.rotation(27.0) @ Affine.scale(0.3, -0.3)
DEGREES = Affine(2.7e-6, 0.0, -122.7, 0.0, -2.7e-6, 47.55)  # about 0.3 m north to south


@pytest.fixture(scope="module")
def kitsap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the bundled scene."""
    path = tmp_path_factory.mktemp("scene") / "kitsap.tif"
    with rasterio.open(bundled_folder("scenes") / "kitsap.tif") as dataset:
        part = Window(512, 512, SIZE, SIZE)
        transform = dataset.window_transform(part)
        return write_raster(
            path, dataset.read(window=part), transform=transform, crs=dataset.crs, photometric="RGB"
        )


@pytest.fixture(scope="module")
def whole(kitsap: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    """Classes of the whole scene."""
    output = tmp_path_factory.mktemp("whole") / "classes.tif"
    summary = segment(SegmentRequest(kitsap, output, MODEL, device="cpu"))
    assert summary.exact
    classes = _read(output)
    for column, row, width, height in EXTENTS.values():
        assert len(np.unique(classes[row : row + height, column : column + width])) == 2
    return classes


@pytest.fixture(scope="module")
def pixels(kitsap: Path) -> NDArray[np.uint8]:
    with rasterio.open(kitsap) as dataset:
        return dataset.read()


@pytest.mark.parametrize("extent", EXTENTS.values(), ids=EXTENTS)
def test_a_window_has_the_classes_of_the_whole_scene(
    tmp_path: Path, kitsap: Path, whole: NDArray[np.uint8], extent: tuple[int, int, int, int]
) -> None:
    output = tmp_path / "classes.tif"
    summary = segment(SegmentRequest(kitsap, output, MODEL, window=extent, device="cpu"))
    np.testing.assert_array_equal(_read(output), _cut(whole, extent))
    assert summary.exact
    column, row, width, height = summary.read_window
    assert width * height < SIZE * SIZE  # less than the scene was read for it
    assert column <= extent[0] and extent[0] + extent[2] <= column + width
    assert row <= extent[1] and extent[1] + extent[3] <= row + height


@pytest.mark.parametrize(
    ("transform", "crs"),
    [(None, None), (DEGREES, "EPSG:4326"), (TURNED, "EPSG:26910")],
    ids=["as it is", "EPSG:4326", "rotated"],
)
def test_a_polygon_has_the_classes_of_the_whole_scene(
    tmp_path: Path,
    kitsap: Path,
    pixels: NDArray[np.uint8],
    whole: NDArray[np.uint8],
    transform: Affine | None,
    crs: str | None,
) -> None:
    scene = kitsap
    if transform is not None:
        scene = write_raster(tmp_path / "scene.tif", pixels, transform=transform, crs=crs, photometric="RGB")
    with rasterio.open(scene) as dataset:
        area = write_area(tmp_path / "area.geojson", dataset.transform, dataset.crs.to_epsg(), [POLYGON])
    output = tmp_path / "classes.tif"
    summary = segment(SegmentRequest(scene, output, MODEL, aoi=area, device="cpu"))
    inside = ~geometry_mask([_ring(POLYGON)], (SIZE, SIZE), Affine.identity())
    expected = np.where(inside, whole, 255)
    result = np.full_like(whole, 255)
    column, row, width, height = summary.window
    result[row : row + height, column : column + width] = _read(output)
    np.testing.assert_array_equal(result, expected)
    assert summary.exact
    assert summary.area_pixels == summary.valid_pixels == inside.sum()
    with rasterio.open(output) as dataset, rasterio.open(scene) as source:
        np.testing.assert_allclose(
            dataset.transform, source.transform @ Affine.translation(column, row), rtol=1e-12
        )
        assert json.loads(dataset.tags()["REST_PARAMETERS"])["area"] == "area.geojson"


def test_nearby_is_exact_where_the_network_looks_no_farther(
    tmp_path: Path, kitsap: Path, whole: NDArray[np.uint8]
) -> None:
    output, extent = tmp_path / "classes.tif", EXTENTS["inside"]
    summary = segment(SegmentRequest(kitsap, output, MODEL, window=extent, context="nearby", device="cpu"))
    np.testing.assert_array_equal(_read(output), _cut(whole, extent))
    assert summary.exact
    assert summary.context == "nearby"


def test_a_network_that_looks_at_everything_is_swept_over_the_whole_scene(tmp_path: Path) -> None:
    card = make_model(tmp_path, {"encoder": "tu-resnet10t", "decoder": "fpn"})  # with GroupNorm
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 420, 700))
    segment(SegmentRequest(scene, tmp_path / "whole.tif", str(card), device="cpu"))
    extent = (333, 111, 47, 58)
    part = SegmentRequest(scene, tmp_path / "part.tif", str(card), window=extent, device="cpu")
    told: list[SegmentProgress] = []
    exact = segment(part, on_progress=told.append)
    np.testing.assert_array_equal(_read(tmp_path / "part.tif"), _cut(_read(tmp_path / "whole.tif"), extent))
    assert exact.exact
    assert exact.read_window == (0, 0, 700, 420)
    stripes = len([progress for progress in told if progress.rows_per_second])
    assert stripes < exact.phases * 420 / exact.stripe  # the last sweep ends with the window's last row
    near = segment(
        SegmentRequest(scene, tmp_path / "near.tif", str(card), window=extent, context="nearby", device="cpu")
    )
    assert not near.exact
    assert near.read_window == (64, 0, 608, 420)  # 256 pixels on each side, on the network's multiple of 32
    assert any("surroundings" in note for note in near.notes)


def test_area_and_window_meet(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 90, 120))
    with rasterio.open(scene) as dataset:
        square = [(20.0, 10.0), (60.0, 10.0), (60.0, 50.0), (20.0, 50.0)]
        area = write_area(tmp_path / "area.geojson", dataset.transform, 26910, [square])
    handed: list[int] = []
    summary = segment(
        SegmentRequest(
            scene, tmp_path / "part.tif", str(tiny_model), aoi=area, window=(40, 0, 50, 30), device="cpu"
        ),
        on_rows=lambda product, row, values: handed.append(row),
    )
    assert summary.window == (40, 10, 20, 20)
    assert handed[0] == 10
    segment(SegmentRequest(scene, tmp_path / "whole.tif", str(tiny_model), device="cpu"))
    np.testing.assert_array_equal(
        _read(tmp_path / "part.tif"), _cut(_read(tmp_path / "whole.tif"), summary.window)
    )


def test_previews_of_one_size_share_their_capture(tiny_model: Path) -> None:
    model, grid = find_model(str(tiny_model)), RunGrid(1500, 1400, 1500, 1400)
    places = [(600, 600), (613, 641), (631, 607)]
    contexts = [
        choose_context(model, grid, (column, row, 64, 48), "nearby", lambda: None) for column, row in places
    ]
    for (column, row), context in zip(places, contexts, strict=True):
        assert context.exact
        assert context.program is contexts[0].program
        left, top, width, height = context.window
        assert left <= column and column + 64 <= left + width < 1500
        assert top <= row and row + 48 <= top + height < 1400


def test_statistics_are_read_again_only_when_the_scene_changed(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 40, 50))

    def statistics(seed: int = 0, bands: tuple[int, ...] = (1, 2, 3)) -> BandStatistics:
        with open_scene(path, bands) as scene:
            return scene_statistics(scene, seed, lambda: False)

    first = statistics()
    assert statistics() is first
    assert statistics(bands=(2, 1, 3)).mean[0] == first.mean[1]
    assert statistics(seed=1) is not first
    write_raster(tmp_path / "scene.tif", ramp(3, 40, 50, seed=2))
    assert (statistics().mean != first.mean).all()


def write_area(
    path: Path, transform: Affine, epsg: int | None, rings: list[list[tuple[float, float]]]
) -> Path:
    """A GeoJSON of polygons given in pixels of a scene."""
    document = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {}, "geometry": _ring([transform @ point for point in ring])}
            for ring in rings
        ],
    }
    if epsg is not None:
        document["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{epsg}"}}
    path.write_text(json.dumps(document))
    return path


def _ring(points: list[tuple[float, float]]) -> dict[str, object]:
    return {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}


def _cut(classes: NDArray[np.uint8], window: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    column, row, width, height = window
    return classes[row : row + height, column : column + width]


def _read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        return dataset.read(1)
