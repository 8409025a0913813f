"""From a layer and an extent to a file and a window; and the live raster's grid."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from osgeo import gdal, osr

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from rest_qgis.layers import live_raster
from rest_qgis.layers.live_raster import LiveRaster
from rest_qgis.processing.errors import SceneError
from rest_qgis.processing.scene import scene_path, scene_window
from tests.qgis.stage import read

UTM = QgsCoordinateReferenceSystem("EPSG:26910")
NORTH_UP = (523653.0, 0.5, 0.0, 5267262.0, 0.0, -0.25)  # pixels twice as wide as tall
ROTATED = (523653.0, 0.4, 0.3, 5267262.0, 0.3, -0.4)
CLASSES = [
    SimpleNamespace(id=0, name="land", color="#00ff00"),
    SimpleNamespace(id=7, name="water", color="#0000ff"),
]


@pytest.fixture
def scene(tmp_path: Path) -> Any:
    def make(transform: tuple[float, ...] | None) -> str:
        path = tmp_path / "scene.tif"
        dataset = gdal.GetDriverByName("GTiff").Create(str(path), 120, 80, 1, gdal.GDT_Byte)
        if transform is not None:
            reference = osr.SpatialReference()
            reference.ImportFromEPSG(26910)
            dataset.SetSpatialRef(reference)
            dataset.SetGeoTransform(transform)
        dataset.FlushCache()
        return str(path)

    return make


@pytest.fixture(params=[False, True], ids=["GDAL returns None", "GDAL raises"])
def exceptions_of_gdal(request: pytest.FixtureRequest) -> Any:
    """Another plugin may have switched them on for the whole process."""
    before = gdal.GetUseExceptions()
    (gdal.UseExceptions if request.param else gdal.DontUseExceptions)()
    yield
    (gdal.UseExceptions if before else gdal.DontUseExceptions)()


def test_file_that_is_no_raster_is_refused(tmp_path: Path, exceptions_of_gdal: None) -> None:
    path = tmp_path / "text.tif"
    path.write_text("no raster")
    with pytest.raises(SceneError, match="cannot be opened"):
        _window(str(path), QgsRectangle(0, 0, 1, 1))


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED], ids=["north up", "rotated"])
@pytest.mark.parametrize("wanted", [(10, 20, 30, 40), (0, 0, 1, 1), (119, 79, 1, 1), (0, 40, 120, 40)])
def test_window_covers_the_pixels_asked_for(scene: Any, transform: tuple[float, ...], wanted: Any) -> None:
    column, row, width, height = wanted
    corners = [
        gdal.ApplyGeoTransform(transform, x, y) for x in (column, column + width) for y in (row, row + height)
    ]
    xs, ys = zip(*corners, strict=True)
    extent = QgsRectangle(min(xs), min(ys), max(xs), max(ys))
    window = _window(scene(transform), extent)
    if transform is NORTH_UP:
        assert window == wanted
    else:  # the box around a turned window covers more than the window
        window = window or (0, 0, 120, 80)
        assert window[0] <= column and window[0] + window[2] >= column + width
        assert window[1] <= row and window[1] + window[3] >= row + height


def test_extent_around_everything_is_the_whole_scene(scene: Any) -> None:
    assert _window(scene(NORTH_UP), QgsRectangle(523000, 5267000, 524000, 5268000)) is None


def test_extent_beyond_an_edge_is_cut(scene: Any) -> None:
    extent = QgsRectangle(523653.0 - 5, 5267262.0 - 5, 523653.0 + 5, 5267262.0 + 5)
    assert _window(scene(NORTH_UP), extent) == (0, 0, 10, 20)


def test_scene_without_georeference_uses_pixels_as_qgis_shows_them(scene: Any) -> None:
    path = scene(None)
    layer = QgsRasterLayer(path)
    assert layer.extent() == QgsRectangle(0, -80, 120, 0)
    extent = QgsRectangle(10, -30, 40, -20)
    window = scene_window(path, QgsCoordinateReferenceSystem(), extent, UTM, QgsCoordinateTransformContext())
    assert window == (10, 20, 30, 10)


def test_extent_in_another_coordinate_system(scene: Any) -> None:
    """The box in degrees around 20 x 10 m covers them and little more."""
    wgs84 = QgsCoordinateReferenceSystem("EPSG:4326")
    context = QgsCoordinateTransformContext()
    metres = QgsRectangle(523653.0 + 20, 5267262.0 - 15, 523653.0 + 40, 5267262.0 - 5)
    degrees = QgsCoordinateTransform(UTM, wgs84, context).transformBoundingBox(metres)
    window = scene_window(scene(NORTH_UP), UTM, degrees, wgs84, context)
    assert window is not None
    assert window.column <= 40 and window.column + window.width >= 80
    assert window.row <= 20 and window.row + window.height >= 60
    assert window.width <= 44 and window.height <= 46


def test_extent_elsewhere_is_refused(scene: Any) -> None:
    with pytest.raises(SceneError, match="does not touch"):
        _window(scene(NORTH_UP), QgsRectangle(0, 0, 10, 10))


def test_file_of_a_layer(scene: Any) -> None:
    path = scene(NORTH_UP)
    assert scene_path(QgsRasterLayer(path, "scene")) == path


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (lambda _path: None, "Choose a raster layer"),
        (lambda _path: QgsVectorLayer("Point", "points", "memory"), "Choose a raster layer"),
        (lambda _path: QgsRasterLayer("/nowhere/scene.tif", "gone"), "gone"),
        (lambda path: QgsRasterLayer(f"/vsisubfile/0,{path}", "part"), "part"),
    ],
    ids=["none", "vector", "missing", "not a file"],
)
def test_layer_without_a_file_is_refused(scene: Any, layer: Any, sentence: str) -> None:
    with pytest.raises(SceneError, match=sentence):
        scene_path(layer(scene(NORTH_UP)))


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, None], ids=["north up", "rotated", "none"])
def test_live_raster_lies_where_the_scene_lies(
    scene: Any, tmp_path: Path, transform: tuple[float, ...] | None
) -> None:
    raster = LiveRaster(tmp_path / "live.vrt", scene(transform), CLASSES, (10, 20, 30, 40))
    raster.create()
    assert raster.fill()
    dataset = gdal.Open(str(raster.path))
    assert (dataset.RasterXSize, dataset.RasterYSize) == (30, 40)
    if transform is None:
        assert dataset.GetGeoTransform(can_return_null=True) is None
    else:
        x, y = gdal.ApplyGeoTransform(transform, 10, 20)
        assert dataset.GetGeoTransform() == (x, transform[1], transform[2], y, transform[4], transform[5])
        assert dataset.GetSpatialRef().GetAuthorityCode(None) == "26910"
    band = dataset.GetRasterBand(1)
    assert band.GetNoDataValue() == 255
    assert band.GetCategoryNames() == ["land", "", "", "", "", "", "", "water"]
    assert band.GetColorTable().GetColorEntry(7) == (0, 0, 255, 255)
    raster.discard()


def test_live_raster_takes_rows_and_parts_of_rows(scene: Any, tmp_path: Path) -> None:
    raster = LiveRaster(tmp_path / "live.vrt", scene(NORTH_UP), CLASSES, (10, 20, 30, 40))
    raster.create()
    assert raster.fill()
    expected = np.full((40, 30), 255, np.uint8)
    assert (read(raster.path) == expected).all()
    raster.write((10, 20, 30, 2), bytes(range(60)))
    raster.write((12, 25, 3, 2), b"\x07" * 6)
    expected[:2] = np.arange(60).reshape(2, 30)
    expected[5:7, 2:5] = 7
    assert raster.rows_written == 2
    assert (read(raster.path) == expected).all()
    raster.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


@pytest.mark.parametrize(
    ("window", "length"),
    [((10, 20, 30, 1), 29), ((9, 20, 30, 1), 30), ((10, 59, 30, 2), 60), ((11, 20, 30, 1), 30)],
    ids=["too short", "left of it", "below it", "right of it"],
)
def test_live_raster_refuses_rows_that_do_not_fit(
    scene: Any, tmp_path: Path, window: Any, length: int
) -> None:
    raster = LiveRaster(tmp_path / "live.vrt", scene(NORTH_UP), CLASSES, (10, 20, 30, 40))
    raster.create()
    assert raster.fill()
    with pytest.raises(ValueError, match="rows"):
        raster.write(window, bytes(length))
    assert (read(raster.path) == 255).all()
    raster.discard()


@pytest.mark.parametrize("parts", [False, True], ids=["whole rows", "parts of rows"])
def test_live_raster_keeps_rows_that_come_before_and_during_the_filling(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    monkeypatch.setattr(live_raster, "_FILL", b"\xff" * 50)  # less than two rows of 30
    raster = LiveRaster(tmp_path / "live.vrt", scene(NORTH_UP), CLASSES, (10, 20, 30, 40))
    raster.create()
    expected = np.full((40, 30), 255, np.uint8)
    left, width = (15, 4) if parts else (10, 30)
    raster.write((left, 20, width, 2), b"\x07" * 2 * width)
    expected[0:2, left - 10 : left - 10 + width] = 7

    def while_filling(seconds: float) -> None:
        number = raster.rows_written
        if number == 3:
            return
        row = (10, 3)[number - 1]  # ahead of the filling, then behind it
        raster.write((left, 20 + row, width, 3), bytes([number]) * 3 * width)
        expected[row : row + 3, left - 10 : left - 10 + width] = number

    monkeypatch.setattr(live_raster.time, "sleep", while_filling)
    assert not raster.path.exists()
    assert raster.fill()
    assert raster.rows_written == 3
    assert (read(raster.path) == expected).all()
    raster.discard()


def test_live_raster_stops_filling_when_it_is_discarded(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_raster, "_FILL", b"\xff" * 50)
    raster = LiveRaster(tmp_path / "live.vrt", scene(NORTH_UP), CLASSES)
    raster.create()
    monkeypatch.setattr(live_raster.time, "sleep", lambda seconds: raster.discard())
    assert not raster.fill()
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_live_raster_needs_room_on_the_disk(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = live_raster.SPARE_BYTES + 120 * 80
    path = scene(NORTH_UP)
    monkeypatch.setattr(live_raster.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    LiveRaster(tmp_path / "fits.vrt", path, CLASSES).create()
    free -= 1
    with pytest.raises(OSError, match="GB of room"):
        LiveRaster(tmp_path / "live.vrt", path, CLASSES).create()
    assert not (tmp_path / "live.raw").exists()


def test_live_raster_of_no_raster_leaves_nothing(tmp_path: Path, exceptions_of_gdal: None) -> None:
    raster = LiveRaster(tmp_path / "live.vrt", str(tmp_path / "gone.tif"), CLASSES)
    with pytest.raises(OSError, match="gone.tif"):
        raster.create()
    assert list(tmp_path.iterdir()) == []


def _window(path: str, extent: QgsRectangle) -> Any:
    return scene_window(path, UTM, extent, UTM, QgsCoordinateTransformContext())
