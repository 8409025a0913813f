"""The form of a run: plan, areas, detail, outputs, preview; with the real daemon."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt, QTimer
from rest_qgis.gui.preparation import Preparation
from rest_qgis.layers.live_layers import JOB_PROPERTY
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing.errors import RunError
from tests.qgis.stage import add_layer, make_scene, messages, open_dock, read, rest_layers, until

LEFT, TOP, PIXEL = 523653.0, 5267262.0, 0.3  # of the scenes made here
WIDTH, HEIGHT = 300, 700


@pytest.fixture
def form(plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path) -> Any:
    """The form with the small scene in it, and its plan."""
    add_layer(small_scene, qgis_iface)
    form = open_dock(plugin, qtbot).run_panel.form
    _wait_for_plan(form, qtbot)
    return form


# --- the plan ------------------------------------------------------------------------


def test_plan_stands_before_run(form: Any) -> None:
    text = form.plan_line.text().replace("\u00a0", " ").replace("\u2011", "-")
    for expected in (f"{WIDTH} × {HEIGHT} px", "3 bands", "CPU", "-row stripes", "memory", "on disk"):
        assert expected in text
    assert re.search(r"(about|less than) \d+ s", text)
    assert "color" not in text  # nothing is wrong
    assert form.run_button.isEnabled()


def test_changes_in_quick_succession_are_planned_once_and_old_answers_ignored(
    form: Any, plugin: RestPlugin, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    ask = plugin.link.plan
    monkeypatch.setattr(plugin.link, "plan", lambda order: (asked.append(order), ask(order)))
    told: list[dict[str, Any]] = []
    plugin.link.plan_changed.connect(told.append)
    form.output_box.confidence_box.click()
    form.area_box.choose("canvas")
    form.area_box.choose("whole")
    form.detail_box.spin_box.setValue(0.6)
    form.detail_box.resample_button.click()
    assert "Planning" in form.plan_line.text()
    _wait_for_plan(form, qtbot)
    assert len(asked) == len(told) == 1
    assert asked[0].resolution_m == 0.6
    assert asked[0].confidence
    assert "network sees 150 × 350" in form.plan_line.text().replace("\u00a0", " ")

    form.detail_box.own_button.click()  # asks anew, soon
    plugin.link.plan_changed.emit(told[0])  # the answer to something else
    assert "Planning" in form.plan_line.text()
    _wait_for_plan(form, qtbot)
    assert "network sees" not in form.plan_line.text().replace("\u00a0", " ")


def test_what_does_not_fit_is_red_and_says_what_would_have_to_change(form: Any, qtbot: Any) -> None:
    form.detail_box.spin_box.setValue(0.001)
    form.detail_box.resample_button.click()
    until(qtbot, lambda: "color" in form.plan_line.text())
    assert "Planning" not in form.plan_line.text()


def test_no_run_while_memory_or_disk_do_not_suffice(plugin: RestPlugin, form: Any, qtbot: Any) -> None:
    until(qtbot, lambda: not plugin.dock.run_panel._timer.isActive())
    plans: list[dict[str, Any]] = []
    plugin.link.plan_changed.connect(plans.append)
    form.changed.emit()
    until(qtbot, lambda: bool(plans))
    full = {"code": "E_DISK", "message": "9 MB are needed, 3 MB are free."}
    plugin.link.plan_changed.emit({**plans[0], "fits": False, "problems": [full]})
    assert not form.run_button.isEnabled()
    assert form.run_button.toolTip() == full["message"]
    assert form.preview_button.isEnabled() or "centre" in form.preview_button.toolTip()
    retry = plugin.dock.run_panel.findChild(QTimer, "RestPlanRetryTimer")
    assert retry.isActive()
    retry.start(1)  # it is asked again by itself, and there is room now
    until(qtbot, form.run_button.isEnabled)
    assert not retry.isActive()
    plugin.link.plan_changed.disconnect(plans.append)


def test_scene_that_is_gone_is_a_sentence(form: Any, qtbot: Any, small_scene: Path) -> None:
    small_scene.unlink()
    form.output_box.confidence_box.click()
    until(qtbot, lambda: "color" in form.plan_line.text())
    assert "small scene" in form.plan_line.text()


# --- layer and model --------------------------------------------------------------------


def test_follows_the_active_layer_but_not_to_results(
    form: Any, qgis_iface: Any, tmp_path: Path, small_scene: Path
) -> None:
    other = add_layer(make_scene(tmp_path / "other.tif", 64, 64), qgis_iface)
    qgis_iface.currentLayerChanged.emit(qgis_iface.mapCanvas())
    assert form.layer() is other
    assert not form.band_table.isVisibleTo(form)  # of the other scene
    result = QgsRasterLayer(str(small_scene), "a result")
    result.setCustomProperty(JOB_PROPERTY, "job-1")
    vector = QgsVectorLayer("Polygon?crs=EPSG:26910", "polygons", "memory")
    for layer in (result, vector):
        QgsProject.instance().addMapLayer(layer)
        qgis_iface.setActiveLayer(layer)
        qgis_iface.currentLayerChanged.emit(qgis_iface.mapCanvas())
        assert form.layer() is other


def test_without_layers_a_sentence(plugin: RestPlugin, qtbot: Any) -> None:
    form = open_dock(plugin, qtbot).run_panel.form
    until(qtbot, lambda: "Add a raster layer" in form.plan_line.text())
    assert not form.run_button.isEnabled()
    assert "Add a raster layer" in form.run_button.toolTip()
    assert not form.preview_button.isEnabled()


def test_resolution_far_from_the_models_is_warned_and_mended_by_one_click(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    scene = make_scene(tmp_path / "coarse.tif", 80, 80)
    dataset = gdal.Open(str(scene), gdal.GA_Update)
    dataset.SetGeoTransform((LEFT, 1.0, 0.0, TOP, 0.0, -1.0))
    dataset = None
    add_layer(scene, qgis_iface)
    form = open_dock(plugin, qtbot).run_panel.form
    _wait_for_plan(form, qtbot)
    assert "1.00 m" in form.detail_box.own_button.text() or "1 m" in form.detail_box.own_button.text()
    assert "0.24 m to 0.38 m" in form.detail_box.warning.text()
    assert form.run_button.isEnabled()
    qtbot.mouseClick(form.detail_box.expected_button, Qt.MouseButton.LeftButton)
    assert form.detail_box.warning.text() == ""
    _wait_for_plan(form, qtbot)
    text = form.plan_line.text().replace("\u00a0", " ")
    assert re.search(r"network sees 26\d × 26\d", text)
    qtbot.mouseClick(form.run_button, Qt.MouseButton.LeftButton)
    until(qtbot, form.run_button.isEnabled)
    assert read(rest_layers()[0].source()).shape == (80, 80)  # on the scene's own pixels


# --- areas ---------------------------------------------------------------------------------


def test_drawn_polygon_masks_the_result(
    form: Any, plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    """Also on a canvas of another coordinate system."""
    whole = _run(form, qgis_iface, qtbot, tmp_path / "whole.tif")
    box = form.area_box
    box.choose("polygon")
    assert "Draw the area" in form.run_button.toolTip()
    assert not form.run_button.isEnabled()
    corners = [(40.23, 100.41), (260.37, 140.19), (200.71, 600.13), (30.57, 400.83)]
    polygon = QgsGeometry.fromPolygonXY([[_place(*corner) for corner in corners]])
    crs = QgsCoordinateReferenceSystem("EPSG:4326")
    canvas = qgis_iface.mapCanvas()
    canvas.setDestinationCrs(crs)
    drawn = QgsGeometry(polygon)
    drawn.transform(QgsCoordinateTransform(_utm(), crs, QgsProject.instance()))
    box.draw_button.click()
    assert canvas.mapTool() is box.drawn.polygon_tool
    box.drawn.polygon_tool.drawn.emit(drawn)  # as clicks do: test_area_tools.py
    assert canvas.mapTool() is not box.drawn.polygon_tool
    assert not box.draw_button.isChecked()
    _wait_for_plan(form, qtbot)
    assert "in the area" in form.plan_line.text().replace("\u00a0", " ")
    inside = _inside(polygon)
    part = _run(form, qgis_iface, qtbot, tmp_path / "part.tif", whole.shape)
    assert (part[~inside] == 255).all()
    assert (part[inside] == whole[inside]).all()


def test_drawn_rectangle_and_selected_polygons(
    form: Any, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    box = form.area_box
    box.choose("rectangle")
    rectangle = QgsGeometry.fromRect(QgsRectangle(_place(50, 200), _place(250, 80)))
    box.drawn.rectangle_tool.drawn.emit(rectangle)
    result = _run(form, qgis_iface, qtbot, tmp_path / "rectangle.tif", (HEIGHT, WIDTH))
    assert ((result != 255) == _inside(rectangle)).all()

    box.choose("layer")
    assert "no layer with polygons" in form.run_button.toolTip()
    layer = QgsVectorLayer("Polygon?crs=EPSG:26910", "polygons", "memory")
    fields = [((20, 40), (60, 100)), ((150, 300), (280, 420))]
    for first, second in fields:
        feature = QgsFeature()
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(_place(*first), _place(*second))))
        layer.dataProvider().addFeatures([feature])
    QgsProject.instance().addMapLayer(layer)
    assert box.layer() is layer
    assert not box.only_selected()
    both = _run(form, qgis_iface, qtbot, tmp_path / "both.tif", (HEIGHT, WIDTH))
    layer.selectByIds([2])
    box.selected_box.click()
    assert "(1)" in box.selected_box.text()
    one = _run(form, qgis_iface, qtbot, tmp_path / "one.tif", (HEIGHT, WIDTH))
    assert [int((values != 255).sum()) for values in (both, one)] == [40 * 60 + 130 * 120, 130 * 120]
    assert (one[300:420, 150:280] != 255).all()
    layer.removeSelection()
    assert "Nothing is selected" in form.run_button.toolTip()
    QgsProject.instance().removeMapLayer(layer.id())
    assert "no layer with polygons" in form.run_button.toolTip()


def test_area_leaves_with_the_plugin(form: Any, plugin: RestPlugin, qgis_iface: Any) -> None:
    canvas = qgis_iface.mapCanvas()
    form.area_box.choose("rectangle")
    before = len(canvas.scene().items())
    form.area_box.drawn.rectangle_tool.drawn.emit(QgsGeometry.fromRect(canvas.extent()))
    assert len(canvas.scene().items()) == before + 1
    form.area_box.choose("whole")
    assert len(canvas.scene().items()) == before  # it counts only while it is chosen
    form.area_box.choose("polygon")
    assert len(canvas.scene().items()) == before + 1
    form.area_box.draw_button.click()
    plugin.unload()
    assert len(canvas.scene().items()) == before
    assert canvas.mapTool() is None


# --- outputs, preview, copies -------------------------------------------------------------


def test_confidence_and_probabilities_on_request(
    form: Any, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    box = form.output_box
    assert not box.confidence_widget.isVisibleTo(form)
    box.confidence_box.click()
    box.probabilities_box.click()
    box.confidence_widget.setFilePath(str(tmp_path / "sure.tif"))
    classes = _run(form, qgis_iface, qtbot, tmp_path / "classes.tif")
    confidence = gdal.Open(str(tmp_path / "sure.tif"))
    assert confidence.RasterCount == 1
    values = confidence.ReadAsArray()
    assert ((values == 255) == (classes == 255)).all()
    assert (values[classes != 255] >= 127).all()  # the larger of two classes

    def temporary() -> list[str]:
        return [layer.source() for layer in rest_layers() if layer.source().endswith("_probabilities.tif")]

    until(qtbot, lambda: bool(temporary()))  # its layer follows the job's end
    assert gdal.Open(temporary()[0]).RasterCount == 2


def test_preview_at_the_centre_of_the_map(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    add_layer(make_scene(tmp_path / "scene.tif", 900, 800), qgis_iface)
    form = open_dock(plugin, qtbot).run_panel.form
    canvas = qgis_iface.mapCanvas()
    canvas.setCenter(_place(500, 380))
    orders: list[Any] = []
    plugin.link.job_submitted.connect(lambda order, _job: orders.append(order))
    _wait_for_plan(form, qtbot)
    for centre, window in (((500, 380), (244, 124, 512, 512)), ((899, 5), (388, 0, 512, 512))):
        canvas.setCenter(_place(centre[0] + 0.5, centre[1] + 0.5))
        qtbot.mouseClick(form.preview_button, Qt.MouseButton.LeftButton)
        assert not form.preview_button.isEnabled()
        until(qtbot, form.preview_button.isEnabled)
        assert messages(qgis_iface, Qgis.MessageLevel.Critical) == []
        assert orders[-1].preview
        assert tuple(orders[-1].window) == pytest.approx(window, abs=1)
        assert re.fullmatch(r"Preview in \d+\.\d s", plugin.dock.strip.status_label.text())
        until(qtbot, lambda: [layer.width() for layer in rest_layers()] == [512])  # one at a time
    canvas.setCenter(_place(-50, 380))
    assert not form.preview_button.isEnabled()
    assert "not on the scene" in form.preview_button.toolTip()
    assert form.run_button.isEnabled()


def test_layer_that_is_no_file_is_copied_and_segmented(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    gdal.Translate("/vsimem/in memory.tif", str(small_scene))
    try:
        layer = QgsRasterLayer("/vsimem/in memory.tif", "in memory")
        assert layer.isValid()
        QgsProject.instance().addMapLayer(layer)
        qgis_iface.mapCanvas().setDestinationCrs(layer.crs())
        qgis_iface.mapCanvas().setExtent(layer.extent())
        form = open_dock(plugin, qtbot).run_panel.form
        until(qtbot, lambda: form.band_table.isVisibleTo(form))
        assert "is copied first" in form.plan_line.text()
        assert "300 × 700" in form.plan_line.text()
        result = _run(form, qgis_iface, qtbot, tmp_path / "copied.tif", preview_too=True)
        QgsProject.instance().removeMapLayer(layer.id())
    finally:
        gdal.Unlink("/vsimem/in memory.tif")
    form.layer_combo.setLayer(add_layer(small_scene, qgis_iface))
    _wait_for_plan(form, qtbot)
    assert (result == _run(form, qgis_iface, qtbot, tmp_path / "plain.tif")).all()


def test_what_is_prepared_can_be_cancelled(qgis_app: Any, qtbot: Any) -> None:
    told: list[tuple[float, bool]] = []
    ended: list[Preparation] = []

    def make(task: Preparation) -> Any:
        task.setProgress(25.0)
        while not task.isCanceled():
            time.sleep(0.01)
        raise RunError("E_CANCELLED", "Cancelled.")

    main = threading.current_thread()
    task = Preparation(
        "a copy", make, lambda share: told.append((share, threading.current_thread() is main)), ended.append
    )
    QgsApplication.taskManager().addTask(task)
    qtbot.waitUntil(lambda: told == [(0.25, True)])
    task.cancel()
    qtbot.waitUntil(lambda: ended == [task])
    assert (task.order, task.error) == (None, None)  # no error: the person wanted it


def test_engine_that_is_off_is_offered_to_be_started(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    plugin.dock.setUserVisible(True)
    form = plugin.dock.run_panel.form
    assert "engine is off" in form.plan_line.text()
    assert not form.run_button.isEnabled()
    assert "engine has started" in form.run_button.toolTip()
    form.plan_line.label.linkActivated.emit("start")
    _wait_for_plan(form, qtbot)
    assert form.run_button.isEnabled()
    plugin.toolbar.stop_action.trigger()
    until(qtbot, lambda: "engine is off" in form.plan_line.text())


# --- pieces ----------------------------------------------------------------------------------


def _utm() -> QgsCoordinateReferenceSystem:
    return QgsCoordinateReferenceSystem("EPSG:26910")


def _place(column: float, row: float) -> QgsPointXY:
    """Where a corner of a pixel lies."""
    return QgsPointXY(LEFT + column * PIXEL, TOP - row * PIXEL)


def _inside(area: QgsGeometry) -> np.ndarray:
    """Whether the centre of each pixel lies in a convex area."""
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    x, y = LEFT + columns * PIXEL, TOP - rows * PIXEL
    ring = area.asPolygon()[0]
    sides = [
        (end.x() - start.x()) * (y - start.y()) - (end.y() - start.y()) * (x - start.x())
        for start, end in zip(ring, ring[1:])  # noqa: B905 - the first corner comes again
    ]
    return np.all([side > 0 for side in sides], axis=0) | np.all([side < 0 for side in sides], axis=0)


def _wait_for_plan(form: Any, qtbot: Any) -> None:
    until(qtbot, lambda: "px" in form.plan_line.text())


def _run(
    form: Any,
    interface: Any,
    qtbot: Any,
    output: Path,
    scene: tuple[int, int] | None = None,
    preview_too: bool = False,
) -> np.ndarray:
    """Press Run; return the classes, laid into an empty scene of a size where one is given."""
    form.output_box.classes_widget.setFilePath(str(output))
    buttons = [form.preview_button, form.run_button] if preview_too else [form.run_button]
    for button in buttons:
        assert button.isEnabled(), button.toolTip()
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        until(qtbot, button.isEnabled)
        assert messages(interface, Qgis.MessageLevel.Critical) == []
    values = read(output)
    if scene is None:
        return values
    left, _, _, top, _, _ = gdal.Open(str(output)).GetGeoTransform()
    column, row = round((left - LEFT) / PIXEL), round((TOP - top) / PIXEL)
    laid = np.full(scene, 255, np.uint8)
    laid[row : row + values.shape[0], column : column + values.shape[1]] = values
    return laid
