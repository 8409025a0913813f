"""Layers that are no file: the copy the daemon gets, and what happens when a source does not answer."""

from __future__ import annotations

import http.server
import math
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsTask,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QBuffer
from qgis.PyQt.QtGui import QColor, QImage, QPainter
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing import copies
from rest_qgis.processing.copies import CONTEXT_PIXELS, LayerCopy
from rest_qgis.processing.errors import RunError, SceneError
from rest_qgis.processing.scene import needs_copy, scene_path
from tests.qgis.stage import CLASSES, MODEL, make_scene, read

MERCATOR = QgsCoordinateReferenceSystem("EPSG:3857")
HALF_WORLD = 20037508.342789244
ZOOM = 17  # of the tiles that have a pattern
AREA = QgsRectangle(-13657000.0, 6042900.0, -13656900.0, 6042960.0)  # at 47.6° north


class Tiles(http.server.ThreadingHTTPServer):
    """A map of tiles: each has one colour, its own; ``mode`` says how it answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), TileHandler)
        self.mode = "tiles"
        self.asked = threading.Event()
        self.over = threading.Event()

    def layer(self, name: str = "tiles") -> QgsRasterLayer:
        """A fresh layer: QGIS keeps tiles by their address."""
        address = f"http://127.0.0.1:{self.server_port}/{name}/%7Bz%7D/%7Bx%7D/%7By%7D.png"
        layer = QgsRasterLayer(f"type=xyz&url={address}&zmin=0&zmax=20", "tiles", "wms")
        assert layer.isValid()
        return layer


class TileHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.set()
        if self.server.mode == "stall":
            self.server.over.wait(60)
            return
        if self.server.mode == "refuse":
            self.send_error(404)
            return
        zoom, column, row = (int(part) for part in self.path.removesuffix(".png").split("/")[-3:])
        if self.server.mode == "holes" and column % 2:
            self.send_error(503)
            return
        content = png(tile_color(column, row), empty=self.server.mode == "empty")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def tile_color(column: int, row: int) -> tuple[int, int, int]:
    return (40 + column * 50 % 200, 40 + row * 70 % 200, 90)


def png(color: tuple[int, int, int], empty: bool) -> bytes:
    """A tile whose lower half is transparent, or all of it."""
    image = QImage(256, 256, QImage.Format.Format_ARGB32)
    image.fill(QColor(0, 0, 0, 0))
    if not empty:
        painter = QPainter(image)
        painter.fillRect(0, 0, 256, 128, QColor(*color))
        painter.end()
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.ReadWrite)
    image.save(buffer, "PNG")
    return bytes(buffer.data())


@pytest.fixture
def tiles(qgis_app: Any) -> Iterator[Tiles]:
    server = Tiles()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[str]:
    """A scene of 200 x 150 pixels that no other process can open."""
    make_scene(tmp_path / "file.tif", 200, 150)
    path = "/vsimem/in memory.tif"
    gdal.GetDriverByName("GTiff").CreateCopy(path, gdal.Open(str(tmp_path / "file.tif"))).FlushCache()
    yield path
    gdal.Unlink(path)


def copy(layer: QgsRasterLayer, path: Path, *arguments: Any, **more: Any) -> copies.Copied:
    return LayerCopy(layer, *arguments, **more).write(path, QgsFeedback())


# --- which layers ------------------------------------------------------------------------


def test_a_file_goes_by_its_path(tmp_path: Path, qgis_app: Any) -> None:
    path = make_scene(tmp_path / "scene.tif", 60, 60)
    gdal.GetDriverByName("VRT").CreateCopy(str(tmp_path / "scene.vrt"), gdal.Open(str(path))).FlushCache()
    for name in ("scene.tif", "scene.vrt"):
        layer = QgsRasterLayer(str(tmp_path / name))
        assert not needs_copy(layer)
        assert scene_path(layer) == str(tmp_path / name)


def test_what_is_more_or_less_than_a_file_needs_a_copy(tmp_path: Path, in_memory: str, tiles: Tiles) -> None:
    path = make_scene(tmp_path / "scene.tif", 60, 60)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "scene.tif")
    table = str(tmp_path / "tables.gpkg")
    options = ["RASTER_TABLE=first"]
    gdal.GetDriverByName("GPKG").CreateCopy(table, gdal.Open(str(path)), options=options).FlushCache()
    sources = (in_memory, f"/vsizip/{tmp_path}/packed.zip/scene.tif", f"GPKG:{table}:first")
    for source in sources:
        layer = QgsRasterLayer(source, "layer")
        assert layer.isValid(), source
        assert needs_copy(layer), source
        with pytest.raises(SceneError, match="E_LAYER_FILE"):
            scene_path(layer)
        copied = copy(layer, tmp_path / "copy.tif")
        assert (read(copied.placement.path) == read(source)).all(), source
    assert needs_copy(tiles.layer())
    assert not needs_copy(None)
    assert not needs_copy(QgsVectorLayer("Point", "points", "memory"))
    assert not needs_copy(QgsRasterLayer("/nowhere.tif", "gone"))


# --- native sources ------------------------------------------------------------------------


def test_copy_of_a_raster_in_memory_keeps_everything(tmp_path: Path, in_memory: str) -> None:
    source = gdal.Open(in_memory, gdal.GA_Update)
    source.SetGeoTransform((523653.0, 0.24, 0.18, 5267262.0, 0.18, -0.24))  # rotated: QGIS shows it warped
    band = source.GetRasterBand(2)
    band.SetDescription("near infrared")
    band.SetScale(0.01)
    band.SetOffset(-0.5)
    band.SetMetadataItem("WAVELENGTH", "842")
    expected = source.ReadAsArray()
    del band, source
    folder = tmp_path / "inbox"
    folder.mkdir()
    percents: list[float] = []
    feedback = QgsFeedback()
    feedback.progressChanged.connect(percents.append)
    copied = LayerCopy(QgsRasterLayer(in_memory, "memory")).write(folder / "scene.tif", feedback)
    assert [path.name for path in folder.iterdir()] == ["scene.tif"]
    made = gdal.Open(copied.placement.path)
    assert (made.ReadAsArray() == expected).all()
    assert made.GetGeoTransform() == (523653.0, 0.24, 0.18, 5267262.0, 0.18, -0.24)
    assert made.GetSpatialRef().GetAuthorityCode(None) == "26910"
    band = made.GetRasterBand(2)
    assert band.DataType == gdal.GDT_Byte
    assert (band.GetNoDataValue(), band.GetScale(), band.GetOffset()) == (0, 0.01, -0.5)
    assert (band.GetDescription(), band.GetMetadataItem("WAVELENGTH")) == ("near infrared", "842")
    assert made.GetRasterBand(1).GetBlockSize() == [512, 512]
    assert copied.placement.shown.authid() == "EPSG:26910"
    assert copied.notes == ()
    assert percents[-1] == 100


def test_coordinate_system_set_by_the_user_goes_along(tmp_path: Path, in_memory: str) -> None:
    layer = QgsRasterLayer(in_memory, "memory")
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32610"))
    copied = copy(layer, tmp_path / "copy.tif")
    assert gdal.Open(copied.placement.path).GetSpatialRef().GetAuthorityCode(None) == "32610"


def test_virtual_raster_of_qgis_is_read_by_its_provider(tmp_path: Path) -> None:
    """A calculation QGIS makes as it reads; more pixels than one block, and a part of them."""
    path = make_scene(tmp_path / "scene.tif", 1300, 900)
    uri = (
        "?crs=EPSG:26910&extent=523653,5266992,524043,5267262&width=1300&height=900"
        f"&formula=%22scene@1%22 %2B 0.5&scene:uri={path}&scene:provider=gdal"
    )
    layer = QgsRasterLayer(uri, "sum", "virtualraster")
    assert layer.isValid(), layer.error().message()
    assert needs_copy(layer)
    expected = read(path).astype(float) + 0.5
    copied = copy(layer, tmp_path / "whole.tif")
    made = gdal.Open(copied.placement.path)
    present = read(path) != 0
    assert made.GetRasterBand(1).DataType in (gdal.GDT_Float32, gdal.GDT_Float64)
    assert (read(copied.placement.path)[present] == expected[present]).all()
    missing = made.GetRasterBand(1).GetNoDataValue()
    assert missing is not None
    gone = read(copied.placement.path)[~present]
    assert (np.isnan(gone) | (gone == missing)).all()  # as this QGIS has it
    assert made.GetGeoTransform() == pytest.approx((523653.0, 0.3, 0.0, 5267262.0, 0.0, -0.3))

    # Columns 700 to 800, rows 700 to 720, and what the network sees around them.
    area = QgsRectangle(523653.0 + 210, 5267262.0 - 216, 523653.0 + 240, 5267262.0 - 210)
    copied = copy(layer, tmp_path / "part.tif", area)
    part = read(copied.placement.path)
    left, top = 700 - CONTEXT_PIXELS, 700 - CONTEXT_PIXELS
    assert part.shape == (900 - top, 100 + 2 * CONTEXT_PIXELS)  # the scene ends below the area
    window = (slice(top, None), slice(left, left + part.shape[1]))
    assert (part[present[window]] == expected[window][present[window]]).all()
    assert "around it were copied" in copied.notes[0]


def test_memory_layer_end_to_end(
    plugin: RestPlugin, qgis_processing: None, in_memory: str, tmp_path: Path, engine_home: Path
) -> None:
    """The same classes as those of the file with the same pixels; the copy goes with the job."""
    import processing

    layer = QgsRasterLayer(in_memory, "memory")
    QgsProject.instance().addMapLayer(layer)
    for source, output in ((layer.id(), "a.tif"), (str(tmp_path / "file.tif"), "b.tif")):
        processing.run("rest:segment", {"INPUT": source, "OUTPUT": str(tmp_path / output)})
    assert (read(tmp_path / "a.tif") == read(tmp_path / "b.tif")).all()
    end = time.monotonic() + 20
    while list((engine_home / "inbox").glob("*")) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list((engine_home / "inbox").glob("*"))


# --- rendered sources -------------------------------------------------------------------------


def test_xyz_is_drawn_in_the_resolution_asked_for(tmp_path: Path, tiles: Tiles) -> None:
    pixel = 2 * HALF_WORLD / 256 / 2**ZOOM  # in map units, at the equator's scale
    latitude = math.degrees(2 * math.atan(math.exp(AREA.center().y() / 6378137.0)) - math.pi / 2)
    ground = pixel * math.cos(math.radians(latitude))  # metres on the ground, on a sphere
    copied = copy(tiles.layer(), tmp_path / "copy.tif", AREA, ground)
    made = gdal.Open(copied.placement.path)
    transform = made.GetGeoTransform()
    assert transform[1] == pytest.approx(pixel, rel=0.005)  # the ellipsoid is not that sphere
    assert -transform[5] == pytest.approx(pixel, rel=0.005)
    assert made.RasterXSize == math.ceil(AREA.width() / transform[1]) + 2 * CONTEXT_PIXELS
    assert made.GetSpatialRef().GetAuthorityCode(None) == "3857"
    meanings = [made.GetRasterBand(number + 1).GetColorInterpretation() for number in range(4)]
    assert meanings == [gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand, gdal.GCI_AlphaBand]
    values = made.ReadAsArray()
    checked = 0
    for row in range(10, made.RasterYSize, 50):
        for column in range(10, made.RasterXSize, 50):
            x, y = gdal.ApplyGeoTransform(transform, column + 0.5, row + 0.5)
            across, down = (x + HALF_WORLD) / pixel / 256, (HALF_WORLD - y) / pixel / 256
            if not (0.1 < across % 1 < 0.9 and (0.1 < down % 1 < 0.4 or 0.6 < down % 1 < 0.9)):
                continue  # beside an edge, where neighbours mix
            checked += 1
            if down % 1 > 0.5:
                assert values[3, row, column] == 0
            else:
                expected = (*tile_color(int(across), int(down)), 255)
                assert tuple(values[:, row, column]) == expected
    assert checked > 40


def test_map_without_end_needs_an_area_and_a_resolution(tmp_path: Path, tiles: Tiles) -> None:
    with pytest.raises(SceneError, match="E_AREA_NEEDED"):
        LayerCopy(tiles.layer())
    with pytest.raises(SceneError, match="E_RESOLUTION_NEEDED"):
        copy(tiles.layer(), tmp_path / "copy.tif", AREA)
    with pytest.raises(SceneError, match="E_COPY_TOO_LARGE.*"):
        copy(tiles.layer(), tmp_path / "copy.tif", AREA, 0.0005)
    with pytest.raises(SceneError, match="does not touch"):
        copy(tiles.layer(), tmp_path / "copy.tif", QgsRectangle(3e7, 3e7, 3.1e7, 3.1e7), 1.0)
    assert list(tmp_path.iterdir()) == []


def test_disk_without_room_is_told_with_its_numbers(
    tmp_path: Path, tiles: Tiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda folder: SimpleNamespace(free=510_000_000))
    with pytest.raises(SceneError, match=r"0\.51 GB free.*E_DISK"):
        copy(tiles.layer(), tmp_path / "copy.tif", AREA, 0.01)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["empty", "refuse"])
def test_map_that_shows_nothing_there_is_told(tmp_path: Path, tiles: Tiles, mode: str) -> None:
    tiles.mode = mode
    with pytest.raises(SceneError, match="E_SOURCE"):
        copy(tiles.layer(mode), tmp_path / "copy.tif", AREA, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_holes_in_a_map_are_told(tmp_path: Path, tiles: Tiles) -> None:
    tiles.mode = "holes"
    copied = copy(tiles.layer("holes"), tmp_path / "copy.tif", AREA, 1.0)
    empty = (gdal.Open(copied.placement.path).ReadAsArray()[3] == 0).mean()
    assert 0.5 < empty < 0.9  # half of each tile is, and every other tile was refused
    assert copied.notes[0].startswith(f"{100 * empty:.3g} % of the copy")


def test_xyz_end_to_end(
    plugin: RestPlugin, qgis_processing: None, tiles: Tiles, tmp_path: Path, engine_home: Path
) -> None:
    """From a script on the main thread, in the model's own resolution, for an extent in degrees."""
    import processing

    layer = tiles.layer()
    QgsProject.instance().addMapLayer(layer)
    output = tmp_path / "classes.tif"
    extent = "-122.6842,-122.6835,47.6193,47.6196 [EPSG:4326]"
    with pytest.raises(Exception, match="E_AREA_NEEDED"):
        processing.run("rest:segment", {"INPUT": layer.id(), "OUTPUT": str(output)})
    assert not list((engine_home / "inbox").glob("*"))
    results = processing.run(
        "rest:segment", {"INPUT": layer.id(), "MODEL": MODEL, "EXTENT": extent, "OUTPUT": str(output)}
    )
    made = gdal.Open(str(output))
    width, height = 0.0007 * 111_320 * math.cos(math.radians(47.62)) / 0.3, 0.0003 * 111_170 / 0.3
    assert made.RasterXSize == pytest.approx(width, rel=0.02)  # the model expects 0.3 m
    assert made.RasterYSize == pytest.approx(height, rel=0.02)
    classes = read(output)
    assert set(np.unique(classes)) <= {*CLASSES, 255}
    assert 0 < results["VALID_PIXELS"] == (classes != 255).sum() < classes.size  # half of a tile is empty


# --- sources that do not answer -----------------------------------------------------------------


def test_silent_source_is_given_up(tmp_path: Path, tiles: Tiles) -> None:
    tiles.mode = "stall"
    with pytest.raises(SceneError, match="gave nothing for 0.5 seconds.*E_SOURCE_STALLED"):
        copy(tiles.layer("silent"), tmp_path / "copy.tif", AREA, 1.0, stall_seconds=0.5)
    assert tiles.asked.is_set()
    assert list(tmp_path.iterdir()) == []


def test_cancel_is_heard_while_the_source_is_silent(tmp_path: Path, tiles: Tiles) -> None:
    tiles.mode = "stall"
    feedback = QgsFeedback()
    thread = threading.Thread(target=lambda: (tiles.asked.wait(30), feedback.cancel()))
    thread.start()
    with pytest.raises(RunError, match="E_CANCELLED"):
        LayerCopy(tiles.layer("cancelled"), AREA, 1.0).write(tmp_path / "copy.tif", feedback)
    thread.join()
    assert list(tmp_path.iterdir()) == []


def test_reader_that_never_comes_back_is_left_behind(
    tmp_path: Path, in_memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL in a system call hears no cancel: nobody waits, and when it returns its files go."""
    held, came = threading.Event(), threading.Event()
    opened = gdal.OpenEx

    def stuck(*arguments: Any, **more: Any) -> Any:
        held.wait(30)
        came.set()
        return opened(*arguments, **more)

    monkeypatch.setattr(copies.gdal, "OpenEx", stuck)
    monkeypatch.setattr(copies, "_LEAVE_SECONDS", 0.1)
    folder = tmp_path / "inbox"
    folder.mkdir()
    with pytest.raises(SceneError, match="E_SOURCE_STALLED"):
        copy(QgsRasterLayer(in_memory, "memory"), folder / "copy.tif", stall_seconds=0.2)
    (reader,) = [thread for thread in threading.enumerate() if thread.name == "rest-copy"]
    held.set()
    reader.join(30)
    assert came.is_set()
    assert list(folder.iterdir()) == []


def test_copy_in_a_background_task(tmp_path: Path, tiles: Tiles, qtbot: Any) -> None:
    """As the dock runs it: made on the main thread, written on QGIS's."""
    source = LayerCopy(tiles.layer(), AREA, 1.0)
    written: list[copies.Copied] = []
    task = QgsTask.fromFunction(
        "copy", lambda task: written.append(source.write(tmp_path / "copy.tif", task))
    )
    QgsApplication.taskManager().addTask(task)
    qtbot.waitUntil(lambda: bool(written), timeout=30_000)
    assert read(written[0].placement.path).size > 0
