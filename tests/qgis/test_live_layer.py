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
    QgsGeometry,
    QgsLayerTree,
    QgsLayerTreeModel,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRasterSymbolLegendNode,
    QgsRectangle,
    QgsSettings,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QColor, QImage
from rest_qgis.client import JobListener
from rest_qgis.layers import live_raster
from rest_qgis.layers.live_layers import REFRESH_MILLISECONDS
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing.area import Area
from rest_qgis.processing.desk import Order
from rest_qgis.processing.models import choose_model
from rest_qgis.processing.scene import placement
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


def test_confidence_grows_below_the_classes_and_both_become_the_files(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None, tmp_path: Path
) -> None:
    add_layer(scene, qgis_iface)
    outputs = {name: str(tmp_path / f"{name}.tif") for name in ("confidence", "probabilities")}
    run = Run(plugin, scene, **outputs)
    until(qtbot, lambda: len(rest_layers()) == 2)
    shown = _by_product()
    assert list(shown) == ["classes", "confidence"]  # from the top
    assert [node.name() for node in QgsProject.instance().layerTreeRoot().children()] == ["REST", "scene"]
    layer = shown["confidence"]
    assert layer.name() == f"Confidence – {run.order.title}"
    renderer = layer.renderer()
    assert renderer.type() == "singlebandgray"
    stretch = renderer.contrastEnhancement()
    assert (stretch.minimumValue(), stretch.maximumValue()) == (0.0, 1.0)
    assert _scores(layer) == {None}
    vrts = [Path(shown[product].source()) for product in shown]
    run.job.grant(2)
    until(qtbot, lambda: len(_scores(layer)) > 1)
    seen = _scores(layer) - {None}
    assert 0.5 <= min(seen) <= max(seen) <= 1.0  # of two classes the likelier has half at least
    run.job.grant(1000)  # more than there are
    until(qtbot, run.over)
    until(qtbot, lambda: len(rest_layers()) == 3)
    done = _by_product()
    assert list(done) == ["classes", "confidence", "probabilities"]
    sources = [run.order.output, outputs["confidence"], outputs["probabilities"]]
    assert [layer.source() for layer in done.values()] == sources
    assert {done[product].id() for product in shown} == {layer.id() for layer in shown.values()}
    assert all(layer.isValid() for layer in done.values())
    assert min(_scores(layer) - {None}) >= 0.5
    assert done["probabilities"].bandCount() == len(CLASSES)
    until(qtbot, lambda: not any(path.exists() for path in vrts))


def test_area_grows_in_its_own_box(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None, tmp_path: Path
) -> None:
    """Where that box lies the daemon tells with the first rows."""
    imagery = add_layer(scene, qgis_iface)
    box = QgsRectangle(523653.0 + 30, 5267262.0 - 150, 523653.0 + 60, 5267262.0 - 90)
    area = Area.of_geometry(QgsGeometry.fromWkt(box.asWktPolygon()), imagery.crs())
    aoi = area.write(tmp_path, placement(imagery), QgsProject.instance().transformContext())
    run = Run(plugin, scene, aoi=aoi)
    until(qtbot, lambda: bool(run.job.id))
    assert rest_layers() == []
    run.job.grant(1)
    layer = wait_for_layer(qtbot)
    assert layer.extent().xMinimum() == pytest.approx(box.xMinimum())
    assert layer.extent().xMaximum() == pytest.approx(box.xMaximum())
    assert layer.extent().yMaximum() == pytest.approx(box.yMaximum())
    until(qtbot, lambda: _drawn_rows(layer) > 0)
    run.job.grant(31)
    until(qtbot, run.over)
    until(qtbot, lambda: layer.source() == run.order.output)
    assert (layer.width(), layer.height()) == (100, 200)


def test_results_of_one_scene_can_be_told_apart(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    names = []
    for number in range(3):
        run = Run(plugin, small_scene, output=str(tmp_path / f"{number}.tif"))
        until(qtbot, run.over)
        until(qtbot, lambda done=run.order.output: any(layer.source() == done for layer in rest_layers()))
        names = [node.name() for node in QgsProject.instance().layerTreeRoot().findGroup("REST").children()]
    title = run.order.title
    assert names == [f"{title} (3)", f"{title} (2)", title]  # the newest on top


def test_preview_takes_the_place_of_the_one_before(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    kept = Run(plugin, small_scene)
    until(qtbot, kept.over)

    def preview(number: int) -> Run:
        output = str(tmp_path / f"preview {number}.tif")
        window = (number * 10, 20, 100, 100)
        return Run(plugin, small_scene, output=output, title="Preview", preview=True, window=window)

    def shown() -> list[str]:
        return sorted(layer.source() for layer in rest_layers())

    first = preview(1)
    until(qtbot, first.over)
    until(qtbot, lambda: shown() == [kept.order.output, first.order.output])
    second = preview(2)
    until(qtbot, second.over)
    until(qtbot, lambda: shown() == [kept.order.output, second.order.output])
    assert [layer.name() for layer in rest_layers() if layer.source() == second.order.output] == ["Preview"]
    until(qtbot, lambda: not list(tmp_path.glob("preview 1*")))
    assert list(tmp_path.glob("preview 2*"))

    # One that was overtaken while it ran shows nothing and leaves nothing.
    third, fourth = preview(3), preview(4)
    until(qtbot, lambda: third.over() and fourth.over())
    until(qtbot, lambda: shown() == [kept.order.output, fourth.order.output])
    until(qtbot, lambda: not list(tmp_path.glob("preview [123]*")))

    # Removed by hand, its files go too; the result of a real job stays.
    (layer,) = [layer for layer in rest_layers() if layer.source() == fourth.order.output]
    QgsProject.instance().removeMapLayer(layer.id())
    until(qtbot, lambda: not list(tmp_path.glob("preview*")))
    QgsProject.instance().removeMapLayer(rest_layers()[0].id())
    plugin.unload()
    qtbot.wait(200)
    assert Path(kept.order.output).is_file()


def test_job_of_an_earlier_session_gets_its_live_layers_again(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, scene: Path, by_hand: None, tmp_path: Path
) -> None:
    """All rows come again from the first; the link is a new one, as after a restart of QGIS."""
    add_layer(scene, qgis_iface)
    run = Run(plugin, scene, confidence=str(tmp_path / "confidence.tif"))
    until(qtbot, lambda: len(rest_layers()) == 2)
    run.job.grant(3)
    until(qtbot, lambda: run.job.stream.next_seq == 3)
    plugin.unload()
    until(qtbot, run.ended.is_set)
    assert rest_layers() == []
    plugin.initGui()

    class Heard(JobListener):
        pass

    job = plugin.desk.resume(run.order, Heard())
    until(qtbot, lambda: len(rest_layers()) == 2)
    assert job.id == run.job.id
    until(qtbot, lambda: job.ended)
    until(qtbot, lambda: rest_layers()[0].source().endswith(".tif"))
    sources = {product: layer.source() for product, layer in _by_product().items()}
    assert sources == {"classes": run.order.output, "confidence": run.order.confidence}


def _by_product() -> dict[str, QgsRasterLayer]:
    """The layers of jobs by what they show, from the top of the group."""
    group = QgsProject.instance().layerTreeRoot().findGroup("REST")
    layers = [node.layer() for node in group.findLayers()]
    return {layer.customProperty("rest/product"): layer for layer in layers}


def _scores(layer: QgsRasterLayer) -> set[float | None]:
    """Scores in column 30 as QGIS reads them, None for no data."""
    provider = layer.dataProvider()
    provider.reloadData()
    block = provider.block(1, layer.extent(), layer.width(), layer.height())
    rows = range(0, layer.height(), 5)
    return {None if block.isNoData(row, 30) else round(block.value(row, 30), 6) for row in rows}


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
