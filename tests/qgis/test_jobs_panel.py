"""The list of jobs, by clicks and keys, against the real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qgis.core import QgsProject, QgsSettings
from qgis.gui import QgsMessageViewer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QApplication, QMessageBox, QToolButton
from rest_qgis.client import Engine, JobRequest
from rest_qgis.gui.jobs_panel import JobsPanel
from rest_qgis.gui.jobs_table import JOB, JOB_ROLE, STATE
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import END_MILLISECONDS, MODEL, flush_events, order_for, rest_layers, until


@pytest.fixture(autouse=True)
def window(qgis_iface: Any) -> Iterator[None]:
    """QGIS's window on the screen: what is seen matters here."""
    qgis_iface.mainWindow().resize(1200, 800)
    qgis_iface.mainWindow().show()
    yield
    qgis_iface.mainWindow().hide()


@pytest.fixture
def panel(plugin: RestPlugin, qtbot: Any) -> Iterator[JobsPanel]:
    """The panel as *Jobs* in the toolbar shows it, with no job in the list."""
    plugin.link.start()
    until(qtbot, lambda: plugin.link.state == "ready" and bool(plugin.link.models))
    plugin.toolbar.jobs_action.trigger()
    assert plugin.jobs_panel.isVisible()
    until(qtbot, lambda: not plugin.link._asking_jobs)
    for job in plugin.link.jobs:
        plugin.link.delete(job["job"])
    until(qtbot, lambda: plugin.link.jobs == [])
    yield plugin.jobs_panel
    QgsSettings().remove("rest_qgis/jobs")


@pytest.fixture
def other_session(engine_home: Path) -> Iterator[Engine]:
    """Another program that uses the same engine."""
    with Engine(home=engine_home) as engine:
        yield engine


def test_while_the_engine_is_off_it_stays_off(
    plugin: RestPlugin, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REST_HOME", str(tmp_path / "home"))
    plugin.toolbar.jobs_action.trigger()
    panel = plugin.jobs_panel
    until(qtbot, lambda: not plugin.link._asking_jobs)
    assert plugin.link.state == "stopped"
    assert panel.empty_label.isVisible()
    assert "engine is off" in panel.empty_label.text()
    assert panel.start_button.isVisible()
    assert not panel._timer.isActive()
    assert not (tmp_path / "home" / "connection.json").exists()


def test_no_jobs_yet(panel: JobsPanel) -> None:
    assert "No jobs yet" in panel.empty_label.text()
    assert panel.empty_label.isVisible()
    assert not panel.start_button.isVisible()
    assert not any(action.isEnabled() for action in _job_actions(panel))


def test_done_failed_and_cancelled_jobs(
    plugin: RestPlugin, panel: JobsPanel, qtbot: Any, small_scene: Path, tmp_path: Path, queue_held: Any
) -> None:
    cancelled = plugin.link.segment(order_for(small_scene, tmp_path / "c.tif", title="cancelled"))
    until(qtbot, lambda: _state(panel, "cancelled") == "Waiting")
    assert plugin.toolbar.jobs_action.text() == "Jobs (2)"
    _choose(panel, "cancelled")
    assert panel.cancel_action.isEnabled() and not panel.load_action.isEnabled()
    _press(qtbot, panel, "Cancel")
    until(qtbot, lambda: _state(panel, "cancelled") == "Cancelled")
    assert cancelled.error.code == "E_CANCELLED"

    queue_held.cancel()
    plugin.link.segment(order_for(small_scene, tmp_path / "d.tif", title="finished", keep_layer=False))
    missing = tmp_path / "missing.tif"
    plugin.link.segment(order_for(missing, tmp_path / "f.tif", title="broken", watchable=False))
    until(qtbot, lambda: _state(panel, "finished") == "Done" and _state(panel, "broken")[:6] == "Failed")
    assert "(E_" in _state(panel, "broken")
    assert plugin.toolbar.jobs_action.text() == "Jobs"

    _choose(panel, "broken")
    panel.copy_action.trigger()
    copied = QApplication.clipboard().text()
    assert "missing.tif" in copied and "(E_" in copied
    qtbot.keyClick(panel.table, Qt.Key.Key_Return)
    (viewer,) = (window for window in QApplication.topLevelWidgets() if isinstance(window, QgsMessageViewer))
    assert not viewer.isModal()
    viewer.close()
    flush_events()

    _choose(panel, "finished")
    qtbot.keyClick(panel.table, Qt.Key.Key_Return)
    (layer,) = rest_layers()
    assert layer.source() == str(tmp_path / "d.tif")
    assert layer.renderer().type() == "paletted"
    panel.load_action.trigger()
    assert rest_layers() == [layer]

    _choose(panel, "cancelled")
    QApplication.setActiveWindow(panel.window())  # there is no window manager to do it
    panel.table.setFocus()
    qtbot.keyClick(panel.table, Qt.Key.Key_Delete)
    until(qtbot, lambda: _state(panel, "cancelled") == "")
    assert (tmp_path / "d.tif").exists()


def test_a_job_of_another_session_is_shown_while_it_runs(
    panel: JobsPanel, qtbot: Any, tmp_path: Path, small_scene: Path, queue_held: Any, other_session: Engine
) -> None:
    output = tmp_path / "theirs.tif"
    other_session.segment(JobRequest(str(small_scene), MODEL, str(output), title="theirs"))
    until(qtbot, lambda: _state(panel, "theirs") == "Waiting")
    assert rest_layers() == []
    _choose(panel, "theirs")
    _press(qtbot, panel, "Show")
    until(qtbot, lambda: [layer.source()[-4:] for layer in rest_layers()] == [".vrt"])
    QgsProject.instance().removeMapLayer(rest_layers()[0].id())
    _press(qtbot, panel, "Show")
    until(qtbot, lambda: [layer.source()[-4:] for layer in rest_layers()] == [".vrt"])
    queue_held.cancel()
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])


def test_several_are_deleted_after_a_question(
    plugin: RestPlugin, panel: JobsPanel, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        plugin.link.segment(
            order_for(tmp_path / f"{name}.tif", tmp_path / "o.tif", title=name, watchable=False)
        )
    until(qtbot, lambda: _state(panel, "one")[:6] == _state(panel, "two")[:6] == "Failed")
    panel.table.selectAll()
    asked: list[str] = []
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *args: (asked.append(args[2]), answers.pop(0))[1])
    _press(qtbot, panel, "Delete")
    assert "2 jobs" in asked[0]
    assert _state(panel, "one").startswith("Failed")
    _press(qtbot, panel, "Delete")
    until(qtbot, lambda: plugin.link.jobs == [])
    assert panel.empty_label.isVisible()


def test_a_result_that_was_deleted_gets_a_sentence(
    plugin: RestPlugin, panel: JobsPanel, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    output = tmp_path / "gone.tif"
    job = plugin.link.segment(order_for(small_scene, output, title="gone", keep_layer=False))
    until(qtbot, lambda: job.ended and _state(panel, "gone") == "Done")
    output.unlink()
    _choose(panel, "gone")
    _press(qtbot, panel, "Load")
    assert "not there any more" in qgis_iface.shown_messages[-1][1]
    assert rest_layers() == []


def test_it_asks_only_while_it_is_seen(plugin: RestPlugin, panel: JobsPanel, qtbot: Any) -> None:
    assert panel._timer.isActive()
    assert 1000 <= panel._timer.interval() <= 2000
    assert plugin.toolbar.jobs_action.isChecked()
    plugin.toolbar.jobs_action.trigger()
    assert not panel._timer.isActive()
    assert not plugin.dock.isVisible()
    plugin.toolbar.jobs_action.trigger()
    assert panel._timer.isActive()
    plugin.toolbar.segment_action.trigger()
    assert not panel.isVisible()
    assert not panel._timer.isActive()
    assert not plugin.toolbar.jobs_action.isChecked()
    plugin.toolbar.jobs_action.trigger()
    plugin.toolbar.stop_action.trigger()
    qtbot.waitUntil(lambda: plugin.link.state == "stopped", timeout=END_MILLISECONDS)
    assert not panel._timer.isActive()


def test_rows_sort_and_keep_their_selection(panel: JobsPanel, tmp_path: Path) -> None:
    jobs = [_job("a", "running", rows_done=1), _job("b", "queued"), _job("c", "done")]
    panel._show_jobs(jobs)
    panel.table.sortByColumn(JOB, Qt.SortOrder.DescendingOrder)
    assert _titles(panel) == ["c", "b", "a"]
    panel.table.sortByColumn(STATE, Qt.SortOrder.AscendingOrder)
    assert _titles(panel) == ["a", "b", "c"]
    _choose(panel, "b")
    panel._show_jobs([_job("d", "running", rows_done=50), *jobs])
    assert _titles(panel) == ["d", "a", "b", "c"]  # farther on first
    assert [job["title"] for job in panel.selected_jobs()] == ["b"]
    assert panel.table.currentIndex().data(JOB_ROLE)["title"] == "b"


def test_usable_at_320_pixels_and_by_keys(plugin: RestPlugin, panel: JobsPanel, qtbot: Any) -> None:
    assert panel.minimumSizeHint().width() <= 320
    assert plugin.dock.minimumSizeHint().width() <= 320
    plugin.dock.setFloating(True)
    plugin.dock.resize(320, 600)
    panel._show_jobs([_job("a long title of a job that has no room", "running", rows_done=40)])
    flush_events()
    header = panel.table.header()
    widths = [header.sectionSize(column) for column in range(header.count())]
    assert sum(widths) <= panel.table.viewport().width()
    assert min(widths) >= 24
    tab_stops = Qt.FocusPolicy.TabFocus
    buttons = [button for button in panel.findChildren(QToolButton) if button.isVisible()]
    assert len(buttons) == 7
    assert all(button.focusPolicy() & tab_stops and button.toolTip() for button in buttons)
    plugin.dock.setFloating(False)


def _job(title: str, state: str, **fields: Any) -> dict[str, Any]:
    job = {"job": title, "state": state, "scene": f"/{title}.tif", "model": MODEL, "output": "/o.tif"}
    return {**job, "title": title, "rows": 100, "device": "cpu", "started_at": 1e9, **fields}


def _titles(panel: JobsPanel) -> list[str]:
    model = panel.table.model()
    return [model.index(row, JOB).data() for row in range(model.rowCount())]


def _state(panel: JobsPanel, title: str) -> str:
    model = panel.table.model()
    titles = _titles(panel)
    return model.index(titles.index(title), STATE).data() if title in titles else ""


def _choose(panel: JobsPanel, title: str) -> None:
    panel.table.setCurrentIndex(panel.table.model().index(_titles(panel).index(title), JOB))


def _press(qtbot: Any, panel: JobsPanel, name: str) -> None:
    qtbot.mouseClick(panel.findChild(QToolButton, f"RestJobs{name}Button"), Qt.MouseButton.LeftButton)


def _job_actions(panel: JobsPanel) -> list[Any]:
    return [action for action in panel.table.actions() if action is not panel.log_action]
