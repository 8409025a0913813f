"""Modules that need QGIS, built under Qt 6 with fakes. Run by ``test_qt6.py`` in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.qt6 import fakes, modules, shim
from tests.qt6.interface import Interface
from tests.qt6.plans import plan, summary

shim.install()
fakes.install(modules.names_of_qgis())

from qgis.PyQt.QtCore import QEvent, QPoint, QPointF, Qt  # noqa: E402
from qgis.PyQt.QtGui import QKeyEvent, QMouseEvent  # noqa: E402
from qgis.PyQt.QtTest import QTest  # noqa: E402
from qgis.PyQt.QtWidgets import QApplication, QComboBox  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def application() -> Any:
    return QApplication.instance() or QApplication([])


@pytest.fixture(autouse=True)
def no_slot_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exception in a slot ends a program under PyQt6, unless somebody takes it."""
    raised: list[BaseException] = []
    monkeypatch.setattr("sys.excepthook", lambda _kind, error, _trace: raised.append(error))
    yield
    for error in raised:
        raise error


@pytest.fixture
def interface() -> Any:
    return Interface()


@pytest.fixture
def plugin(interface: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from rest_qgis.plugin import RestPlugin

    monkeypatch.setenv("REST_HOME", str(tmp_path / "rest"))
    monkeypatch.setenv("REST_BACKEND", str(tmp_path / "none"))
    made = RestPlugin(interface)
    made.initGui()
    interface.window.show()
    made.dock.setUserVisible(True)
    made.link.state = "ready"
    made.link.state_changed.emit("ready", "")
    made.link.models_changed.emit([summary()])
    yield made
    made.unload()


def test_every_fake_is_wanted() -> None:
    wanted = {name.rpartition(".")[2] for name in modules.names_of_qgis()} - {"gdal", "osr"}
    written = {
        name
        for name, thing in vars(fakes).items()
        if isinstance(thing, type) and thing.__module__ == fakes.__name__
    }
    assert written | set(fakes.PLAIN) == wanted
    assert not written & set(fakes.PLAIN)


@pytest.mark.parametrize("name", modules.with_qgis())
def test_imports(name: str) -> None:
    importlib.import_module(name)


def test_plugin_is_built_and_unloaded(plugin: Any, interface: Any) -> None:
    for part in (plugin.dock, plugin.toolbar, plugin.jobs_panel, plugin.link, plugin.live_layers):
        assert part is not None
    assert plugin.toolbar.engine_button.text() == "Idle"
    plugin.unload()
    assert plugin.dock is None


def test_form_follows_and_plans(plugin: Any, interface: Any) -> None:
    panel = plugin.dock.run_panel
    form = panel.form
    assert form.model().id == "m1"
    assert form.layer() is interface.layer
    assert form.run_button.isEnabled()
    panel._timer.stop()
    panel._fresh = True  # as if a plan were under way
    plugin.link.plan_changed.emit(plan("order"))
    assert "2560" in form.plan_line.text()
    assert form.band_table.doubts()
    QTest.mouseClick(form.band_table.confirm_button, Qt.MouseButton.LeftButton)
    assert form.band_table.bands() == (1, 2, 3)
    assert "Planning" in form.plan_line.text()
    panel._fresh = True
    plugin.link.plan_refused.emit("E_SCENE", "No scene.")
    assert "No scene." in form.plan_line.text()


def test_areas_are_drawn(plugin: Any, interface: Any) -> None:
    box = plugin.dock.run_panel.form.area_box
    box.choose("polygon")
    assert "Draw the area" in box.trouble()
    QTest.mouseClick(box.draw_button, Qt.MouseButton.LeftButton)
    tool = interface.canvas.mapTool()
    assert tool is box.drawn.polygon_tool
    for place in ((10, 10), (90, 10), (90, 90), (50, 50)):
        tool.canvasReleaseEvent(_mouse(place))
    tool.canvasMoveEvent(_mouse((20, 80)))
    tool.keyPressEvent(_key(Qt.Key.Key_Backspace))
    tool.canvasReleaseEvent(_mouse((20, 80), Qt.MouseButton.RightButton))
    assert box.drawn.geometry()[0].other.other == [[(10, 10), (90, 10), (90, 90), (10, 10)]]
    assert box.trouble() == ""
    assert interface.canvas.mapTool() is None
    assert len(fakes.QgsRubberBand.shown) == 1
    box.choose("rectangle")
    QTest.mouseClick(box.draw_button, Qt.MouseButton.LeftButton)
    tool = interface.canvas.mapTool()
    tool.canvasPressEvent(_mouse((5, 5)))
    tool.canvasMoveEvent(_mouse((30, 30)))
    tool.canvasReleaseEvent(_mouse((40, 50)))
    assert box.drawn.geometry()[0].other.other == [[(5, 5), (40, 5), (40, 50), (5, 50), (5, 5)]]
    QTest.mouseClick(box.draw_button, Qt.MouseButton.LeftButton)
    interface.canvas.mapTool().keyPressEvent(_key(Qt.Key.Key_Escape))
    assert interface.canvas.mapTool() is None
    assert not box.draw_button.isChecked()
    QTest.mouseClick(box.clear_button, Qt.MouseButton.LeftButton)
    assert fakes.QgsRubberBand.shown == []
    box.choose("layer")
    assert "no layer with polygons" in box.trouble()
    layer = fakes.QgsVectorLayer("fields")
    box.layer_combo.setLayer(layer)
    assert box.trouble() == ""
    layer.selected = 2
    layer.selectionChanged.emit()
    assert "(2)" in box.selected_box.text()


def test_outputs(plugin: Any) -> None:
    box = plugin.dock.run_panel.form.output_box
    box.confidence_box.click()
    box.confidence_widget.setFilePath("/data/sure.tif")
    classes, confidence, probabilities = box.paths("a scene/1")
    assert classes.endswith("a_scene_1.tif")
    assert confidence == "/data/sure.tif"
    assert probabilities == ""


def test_a_task_makes_an_order_or_says_why_not() -> None:
    from rest_qgis.gui.preparation import Preparation
    from rest_qgis.processing.errors import SceneError

    ended: list[Any] = []

    def refuse(_task: Any) -> Any:
        raise SceneError("E_LAYER", "No layer.")

    for make in (lambda task: "an order", refuse):
        fakes.QgsApplication.taskManager().addTask(Preparation("a task", make, None, ended.append))
    assert ended[0].order == "an order"
    assert ended[1].order is None
    assert ended[1].error.code == "E_LAYER"


def test_progress_and_end_of_a_job(plugin: Any, interface: Any) -> None:
    panel, strip = plugin.dock.run_panel, plugin.dock.strip
    order = SimpleNamespace(title="a job", preview=False)
    panel._order = order  # as if it had been handed in
    progress = SimpleNamespace(
        stage="sweep",
        rows_done=1,
        rows=4,
        rows_per_second=1.0,
        eta_seconds=3.0,
        device="cpu",
        memory_bytes=10**9,
        note="something to know",
    )
    plugin.link.job_progress.emit(order, progress)
    assert strip.progress_bar.value() == 25
    assert interface.bar.shown[-1].message == (fakes.Qgis.MessageLevel.Warning, "something to know")
    done = SimpleNamespace(output="/data/classes.tif", summary={"seconds": 2.0, "notes": []})
    plugin.link.job_done.emit(order, done)
    assert strip.status_label.text() == "Done in 2.0 s"
    assert not strip.busy


def test_messages_have_details(interface: Any) -> None:
    from rest_qgis.gui.messages import Messages

    messages = Messages(interface)
    messages.error("E_CODE", "It failed.", "more")
    messages.info("news")
    assert len(interface.bar.shown) == 2
    assert any("It failed. (E_CODE)" in text for text in fakes.QgsMessageLog.told)
    messages.close()
    assert interface.bar.shown == []


def test_toolbox_field() -> None:
    from rest_qgis.processing.model_widget import ModelWidgetWrapper

    wrapper = ModelWidgetWrapper()
    assert isinstance(wrapper.widget, QComboBox)
    wrapper.setValue("/data/card.json")
    assert wrapper.value() == "/data/card.json"


def _mouse(place: tuple[int, int], button: Any = Qt.MouseButton.LeftButton) -> QMouseEvent:
    point = QPointF(QPoint(*place))
    modifiers = Qt.KeyboardModifier.NoModifier
    return QMouseEvent(QEvent.Type.MouseButtonRelease, point, point, button, button, modifiers)


def _key(key: Any) -> QKeyEvent:
    return QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier)
