"""The plugin comes and goes without a trace."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rest_qgis
from qgis.core import Qgis, QgsApplication, QgsProject, QgsSettings
from qgis.PyQt.QtCore import QObject, QTimer
from qgis.PyQt.QtWidgets import QDockWidget, QToolBar, QWidget
from rest_qgis.client import transport
from rest_qgis.gui import records, toolbar
from rest_qgis.install.folder import results_folder
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import (
    end_engine,
    flush_events,
    messages,
    order_for,
    rest_layers,
    until,
)


def test_class_factory_makes_the_plugin(qgis_iface: Any) -> None:
    assert isinstance(rest_qgis.classFactory(qgis_iface), RestPlugin)


def test_loads_and_unloads_twice_without_leftovers(engine_home: Any, qgis_iface: Any) -> None:
    window = qgis_iface.mainWindow()
    registry = QgsApplication.processingRegistry()
    flush_events()
    before = _ours(window)
    plugin = RestPlugin(qgis_iface)
    for _ in range(2):
        plugin.initGui()
        assert registry.providerById("rest") is not None
        assert registry.algorithmById("rest:segment") is not None
        assert len(window.findChildren(QToolBar, "RestToolbar")) == 1
        assert len(window.findChildren(QDockWidget, "RestSegmentDock")) == 1
        plugin.unload()
        plugin.unload()
        flush_events()
        assert registry.providerById("rest") is None
        assert _ours(window) == before


def test_unloaded_in_mid_job_nothing_is_left_but_the_job(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, long_scene: Path
) -> None:
    window = qgis_iface.mainWindow()
    plugin.unload()
    flush_events()
    before = _ours(window), _receivers()
    plugin.initGui()
    plugin.toolbar.jobs_action.trigger()
    job = plugin.link.segment(order_for(long_scene, long_scene.with_name("classes.tif")))
    until(qtbot, lambda: len(rest_layers()) == 1 and plugin.link.jobs != [])
    plugin.messages.warning("still here")
    assert (_ours(window), _receivers()) != before
    live = Path(rest_layers()[0].source())
    assert live.parent == results_folder()  # for QGIS asks about layers in its temporary folder when it ends
    plugin.unload()
    assert list(live.parent.glob(f"{live.stem}*")) == []
    flush_events()
    assert (_ours(window), _receivers()) == before
    assert rest_layers() == []
    assert qgis_iface.messageBar().items() == []
    until(qtbot, lambda: job.ended)
    assert job.error.code == "E_CLIENT_CLOSED"
    until(qtbot, lambda: not [name for name in _threads() if name.startswith("rest-")])
    assert [order.key for order in records.orders_of_project(unsaved=False)] == [job.key]


def test_second_init_gui_changes_nothing(plugin: RestPlugin) -> None:
    toolbar, dock = plugin.toolbar, plugin.dock
    plugin.initGui()
    assert plugin.toolbar is toolbar
    assert plugin.dock is dock


def test_processing_alone_makes_no_widget(qgis_iface: Any) -> None:
    """As under qgis_process, where there is no interface."""
    window = qgis_iface.mainWindow()
    flush_events()
    before = _ours(window)
    plugin = RestPlugin(None)
    plugin.initProcessing()
    assert QgsApplication.processingRegistry().algorithmById("rest:segment") is not None
    assert _ours(window) == before
    plugin.unload()
    assert QgsApplication.processingRegistry().providerById("rest") is None


def test_every_control_has_a_name_of_its_own(plugin: RestPlugin) -> None:
    bar = plugin.toolbar
    named = [bar, plugin.dock, bar.engine_button, bar.engine_button.menu(), *bar.actions()]
    named += [action for action in bar.engine_button.menu().actions() if not action.isSeparator()]
    panel = plugin.jobs_panel
    named += [panel, panel.table, panel.start_button, *panel.table.actions()]
    named += [plugin.dock.run_panel, plugin.dock.run_panel.form.run_button, plugin.dock.strip.cancel_button]
    assert all(thing.objectName().startswith("Rest") for thing in named)
    ours = [plugin.dock, *plugin.dock.findChildren(QObject), bar, *bar.findChildren(QObject)]
    names = [thing.objectName() for thing in ours if thing.objectName().startswith("Rest")]
    assert sorted(names) == sorted(set(names))
    assert {thing.objectName() for thing in named} <= set(names)


def test_icons_are_found(plugin: RestPlugin) -> None:
    assert not plugin.provider.icon().isNull()
    assert not plugin.provider.algorithm("segment").icon().pixmap(24).isNull()
    assert all(not action.icon().pixmap(24).isNull() for action in plugin.jobs_panel.table.actions())
    for action in (plugin.toolbar.segment_action, plugin.toolbar.jobs_action):
        assert not action.icon().pixmap(24).isNull()


def test_without_pyzmq_a_sentence_and_no_traceback(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "zmq", None)
    with qtbot.captureExceptions() as exceptions:
        plugin.toolbar.segment_action.trigger()
        qtbot.waitUntil(lambda: bool(messages(qgis_iface, Qgis.MessageLevel.Critical)))
    assert exceptions == []
    assert "pyzmq" in messages(qgis_iface, Qgis.MessageLevel.Critical)[0]
    assert "E_ZMQ_MISSING" in messages(qgis_iface, Qgis.MessageLevel.Critical)[0]
    assert "pyzmq" in plugin.dock.run_panel.form.card_view.text()


def test_log_opens_without_pyzmq(
    plugin: RestPlugin, qtbot: Any, engine_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "zmq", None)
    opened: list[str] = []
    monkeypatch.setattr(
        toolbar, "QDesktopServices", SimpleNamespace(openUrl=lambda url: opened.append(url.toLocalFile()))
    )
    with qtbot.captureExceptions() as exceptions:
        plugin.toolbar.log_action.trigger()
    assert exceptions == []
    assert opened == [str(engine_home / "log")]


def test_chosen_backend_reaches_the_next_start(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.environ["REST_BACKEND"]
    monkeypatch.delenv("REST_BACKEND")
    monkeypatch.setenv("REST_HOME", str(tmp_path / "home"))
    try:
        QgsSettings().setValue("rest_qgis/backend", str(tmp_path / "nothing here"))
        plugin.toolbar.start_action.trigger()
        qtbot.waitUntil(lambda: bool(messages(qgis_iface, Qgis.MessageLevel.Critical)), timeout=30_000)
        assert "nothing here" in messages(qgis_iface, Qgis.MessageLevel.Critical)[0]
        monkeypatch.setattr(
            toolbar, "QFileDialog", SimpleNamespace(getOpenFileName=lambda *_: (real, "All files"))
        )
        plugin.toolbar.choose_action.trigger()
        assert QgsSettings().value("rest_qgis/backend") == real
        plugin.toolbar.start_action.trigger()
        qtbot.waitUntil(lambda: plugin.toolbar.engine_button.text() == "Idle", timeout=120_000)
    finally:
        QgsSettings().remove("rest_qgis/backend")
        end_engine(tmp_path / "home")


def test_without_a_backend_a_sentence(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("REST_BACKEND", str(tmp_path / "nothing here"))
    monkeypatch.setenv("REST_HOME", str(tmp_path / "home"))
    plugin.toolbar.start_action.trigger()
    qtbot.waitUntil(lambda: bool(messages(qgis_iface, Qgis.MessageLevel.Critical)), timeout=10_000)
    assert "E_ENGINE_MISSING" in messages(qgis_iface, Qgis.MessageLevel.Critical)[0]
    qtbot.waitUntil(lambda: plugin.toolbar.engine_button.text() == "Off", timeout=10_000)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def _receivers() -> list[int]:
    """How many listen to each of the project's signals that the plugin listens to."""
    project = QgsProject.instance()
    signals = (project.readProject, project.cleared, project.projectSaved, project.writeMapLayer)
    return [project.receivers(signal) for signal in signals]


def _ours(window: QWidget) -> list[str]:
    """Names of all living things under the main window that are the plugin's."""
    found = [thing.objectName() for thing in window.findChildren(QObject)]
    found += [timer.objectName() for timer in QgsApplication.instance().findChildren(QTimer)]
    return sorted(name for name in found if name.startswith("Rest"))
