"""The live layer: rows on the map before the job is done, and what becomes of it."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rest_qgis.client
from qgis.core import (
    Qgis,
    QgsLayerTree,
    QgsLayerTreeModel,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRasterSymbolLegendNode,
    QgsSettings,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QColor, QImage
from rest_qgis.client import JobListener
from rest_qgis.layers import live_raster
from rest_qgis.layers.live_layers import REFRESH_MILLISECONDS
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing.desk import Order
from rest_qgis.processing.models import choose_model
from tests.qgis.stage import (
    CLASSES,
    MODEL,
    REPOSITORY,
    add_layer,
    make_scene,
    messages,
    read,
    rest_layers,
    until,
    wait_for_layer,
)

WIDTH, HEIGHT = 256, 1300  # taller than the model's reach, so that rows come in many blocks


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every job wait for its rows to be granted."""
    request = functools.partial(rest_qgis.client.JobRequest, manual_credit=True)
    monkeypatch.setattr(rest_qgis.client, "JobRequest", request)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", WIDTH, HEIGHT)


class Run(JobListener):
    """A job as dock and toolbox hand it in, and what it told."""

    def __init__(self, plugin: RestPlugin, scene: Path, **fields: Any) -> None:
        self.model = choose_model(str(REPOSITORY / "resources" / "models" / f"{MODEL}.json"), [])
        self.ended = threading.Event()
        self.error = ""
        self.order = Order(
            scene=str(scene),
            model=MODEL,
            classes=self.model.classes,
            **{"output": str(scene.with_name("classes.tif")), "title": f"{scene.stem} – Buildings", **fields},
        )
        self.job = plugin.desk.segment(self.order, self)

    def done(self, job: Any, done: Any) -> None:
        self.ended.set()

    def failed(self, job: Any, code: str, message: str) -> None:
        self.error = f"{code} {message}"
        self.ended.set()

    def over(self) -> bool:
        """Whether the job ended well."""
        assert self.error == ""
        return self.ended.is_set()


def test_refreshes_no_more_often_than_the_issue_allows() -> None:
    assert REFRESH_MILLISECONDS >= 250


def test_new_rows_are_shown_before_done_and_the_same_layer_gets_the_result(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    imagery = add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    job = run.job
    layer = wait_for_layer(qtbot)
    identifier, vrt = layer.id(), Path(layer.source())
    assert _drawn_rows(layer) == 0
    assert qgis_iface.activeLayer() is imagery

    repaints: list[int] = []
    layer.repaintRequested.connect(lambda *_: repaints.append(1))
    job.grant(1)
    until(qtbot, lambda: len(repaints) > 0 and _drawn_rows(layer) > 0)
    drawn = _drawn_rows(layer)
    assert 0 < drawn < HEIGHT // 2
    assert job.state in ("running", "queued")
    assert job.stream.next_seq == 1
    raw = vrt.with_suffix(".raw").read_bytes()
    assert len(raw) == WIDTH * HEIGHT
    assert set(raw[: drawn * WIDTH]) <= set(CLASSES)
    assert set(raw[drawn * WIDTH :]) == {255}
    assert not run.ended.is_set()

    job.grant(31)  # the rest: more than there are
    until(qtbot, run.over)
    until(qtbot, lambda: layer.source().endswith(".tif"))
    assert [other.id() for other in rest_layers()] == [identifier]
    assert layer.isValid()
    assert qgis_iface.activeLayer() is imagery
    assert read(layer.source()).tobytes()[: drawn * WIDTH] == raw[: drawn * WIDTH]
    until(qtbot, lambda: not vrt.exists() and not vrt.with_suffix(".raw").exists())


def test_repaints_only_for_new_rows_and_never_into_a_drawing(
    plugin: RestPlugin,
    qgis_iface: Any,
    qtbot: Any,
    scene: Path,
    by_hand: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing = [True]
    monkeypatch.setattr(qgis_iface.mapCanvas(), "isDrawing", lambda: drawing[0])
    add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    layer = wait_for_layer(qtbot)
    (listener,) = plugin.live_layers._shown
    repaints: list[int] = []
    layer.repaintRequested.connect(lambda *_: repaints.append(1))

    def let_three_ticks_pass() -> None:
        ticks: list[int] = []
        plugin.live_layers._timer.timeout.connect(lambda: ticks.append(1))
        until(qtbot, lambda: len(ticks) >= 3)

    run.job.grant(1)
    until(qtbot, lambda: listener.rasters["classes"].rows_written == 1)
    let_three_ticks_pass()
    assert len(repaints) == 0  # the canvas still draws
    drawing[0] = False
    let_three_ticks_pass()
    assert len(repaints) == 1
    let_three_ticks_pass()
    assert len(repaints) == 1  # no new row
    run.job.grant(31)
    until(qtbot, run.over)


def test_without_room_on_the_disk_no_live_layer_but_the_result(
    plugin: RestPlugin,
    qgis_iface: Any,
    qtbot: Any,
    small_scene: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_raster.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    add_layer(small_scene, qgis_iface)
    run = Run(plugin, small_scene)
    layer = wait_for_layer(qtbot)
    assert layer.source().endswith(".tif")  # only when the job was done
    (told,) = [text for text in messages(qgis_iface, Qgis.MessageLevel.Warning) if "room" in text]
    assert "the job goes on" in told
    until(qtbot, run.over)


def test_class_ids_are_never_mixed_whatever_the_user_set_for_rasters(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    settings = QgsSettings()
    settings.setValue("/Raster/defaultZoomedInResampling", "cubic")
    settings.setValue("/Raster/defaultZoomedOutResampling", "bilinear")
    try:
        assert add_layer(scene, qgis_iface).resampleFilter().zoomedInResampler() is not None
        run = Run(plugin, scene)
        layer = wait_for_layer(qtbot)
    finally:
        settings.remove("/Raster/defaultZoomedInResampling")
        settings.remove("/Raster/defaultZoomedOutResampling")
    assert layer.resampleFilter().zoomedInResampler() is None  # nearest neighbour
    assert layer.resampleFilter().zoomedOutResampler() is None
    assert layer.renderer().type() == "paletted"
    assert layer.renderer().opacity() == 1.0
    run.job.grant(32)
    until(qtbot, run.over)


def test_legend_is_the_cards_before_and_after(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    card = [(entry.id, entry.name, entry.color) for entry in run.model.classes]
    assert [(number, name) for number, name, _color in card] == list(CLASSES.items())
    layer = wait_for_layer(qtbot)
    assert _legend(layer) == card
    assert _legend_tree(layer) == [name for _number, name, _color in card]
    layer.setName("mine")
    run.job.grant(32)
    until(qtbot, lambda: layer.source().endswith(".tif"))
    assert _legend(layer) == card
    assert _legend_tree(layer) == [name for _number, name, _color in card]
    assert layer.name() == "mine"


def test_grid_is_the_scenes(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    imagery = add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    job = run.job
    layer = wait_for_layer(qtbot)
    for _ in range(2):
        assert layer.extent() == imagery.extent()
        assert layer.crs() == imagery.crs()
        assert (layer.width(), layer.height()) == (WIDTH, HEIGHT)
        job.grant(32)
        until(qtbot, lambda: layer.source().endswith(".tif"))


def test_group_lies_above_the_imagery(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path
) -> None:
    """Also when the imagery was put above an earlier group."""
    root = QgsProject.instance().layerTreeRoot()
    root.insertGroup(0, "REST")
    add_layer(small_scene, qgis_iface)
    assert [node.name() for node in root.children()] == ["small scene", "REST"]
    run = Run(plugin, small_scene)
    layer = wait_for_layer(qtbot)
    assert [node.name() for node in root.children()] == ["REST", "small scene"]
    assert [node.layerId() for node in root.children()[0].findLayers()] == [layer.id()]
    until(qtbot, run.over)


def test_removing_the_layer_while_it_grows_does_no_harm(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    layer = wait_for_layer(qtbot)
    vrt = Path(layer.source())
    output = Path(run.order.output)
    QgsProject.instance().removeMapLayer(layer.id())
    with qtbot.captureExceptions() as exceptions:
        run.job.grant(32)
        until(qtbot, run.over)
        until(qtbot, lambda: not vrt.exists())
    assert exceptions == []
    assert rest_layers() == []
    assert output.is_file()


def test_unload_in_mid_job_leaves_no_layer_and_no_file(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None
) -> None:
    add_layer(scene, qgis_iface)
    run = Run(plugin, scene)
    job = run.job
    vrt = Path(wait_for_layer(qtbot).source())
    job.cancel()
    plugin.unload()
    assert rest_layers() == []
    until(qtbot, lambda: not vrt.exists() and not vrt.with_suffix(".raw").exists())


def _draw(layer: QgsRasterLayer) -> QImage:
    """Draw a layer at one screen pixel a pixel, on white, as the canvas does: on other threads."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setDestinationCrs(layer.crs())
    settings.setOutputSize(QSize(layer.width(), layer.height()))
    settings.setExtent(layer.extent())
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererParallelJob(settings)
    job.start()
    job.waitForFinished()
    return job.renderedImage()


def _drawn_rows(layer: QgsRasterLayer) -> int:
    """Number of rows from the top that show a class in the map's colours."""
    image = _draw(layer)
    assert (image.width(), image.height()) == (layer.width(), layer.height())
    colors = {entry.color.rgb() for entry in layer.renderer().classes()}
    column = layer.width() // 4
    for row in range(image.height()):
        if image.pixel(column, row) not in colors:
            return row
    return image.height()


def _legend(layer: QgsRasterLayer) -> list[tuple[int, str, str]]:
    return [(entry.value, entry.label, entry.color.name()) for entry in layer.renderer().classes()]


def _legend_tree(layer: QgsRasterLayer) -> list[str]:
    """The entries of the layer panel below the layer; a heading such as "Band 1" has no colour."""
    tree = QgsLayerTree()
    node = tree.addLayer(layer)
    model = QgsLayerTreeModel(tree)
    entries = model.layerLegendNodes(node)
    role = Qt.ItemDataRole.DisplayRole
    return [str(entry.data(role)) for entry in entries if isinstance(entry, QgsRasterSymbolLegendNode)]
