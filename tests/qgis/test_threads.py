"""QGIS's main thread neither waits nor touches a socket nor writes a file during a run."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from qgis.core import QgsProject
from qgis.PyQt.QtCore import Qt
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import add_layer, open_dock, order_for, rest_layers, until

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_WATCHED = ("socket.", "subprocess.", "os.remove", "os.rename", "os.mkdir", "os.truncate", "shutil.")


class Watch:
    """Records what Python does that could block, and on which thread."""

    def __init__(self) -> None:
        self.on = False
        self.main: list[str] = []
        self.elsewhere: set[str] = set()

    def note(self, what: str) -> None:
        if not self.on:
            return
        if threading.current_thread() is threading.main_thread():
            self.main.append(what)
        else:
            self.elsewhere.add(what.split(" ")[0])

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's own report of every open, socket call, process and deletion."""
        if not self.on:
            return
        if event == "open":
            path, _mode, flags = arguments
            if isinstance(flags, int) and flags & _WRITING and path != os.devnull:
                self.note(f"open {path}")
        elif event.startswith(_WATCHED):
            self.note(f"{event} {arguments}")


@pytest.fixture(scope="module")
def audited() -> Watch:
    watch = Watch()
    sys.addaudithook(watch.audit)  # cannot be taken back; silent while the watch is off
    return watch


@pytest.fixture
def watch(audited: Watch, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """The audit hook, and what has no audit event: waiting, and ZeroMQ."""

    def recorded(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def record(self: Any, *args: Any, **kwargs: Any) -> Any:
            # A PAIR is the in-process queue that wakes the client's thread: it has no network and never
            # waits. A thread being started is waited for by Thread.start itself, some microseconds.
            harmless = isinstance(self, zmq.Socket) and self.type == zmq.PAIR
            if not harmless and not _called_by_thread_start():
                audited.note(f"{owner.__name__}.{name}")
            return original(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, record)

    for name in ("send", "recv", "connect", "bind", "poll"):
        recorded(zmq.Socket, name)
    recorded(zmq.Poller, "poll")
    recorded(threading.Event, "wait")
    recorded(threading.Condition, "wait")
    recorded(threading.Thread, "join")
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (audited.note("time.sleep"), sleep(seconds)))
    audited.main.clear()
    audited.elsewhere.clear()
    yield audited
    audited.on = False


def test_a_whole_run_of_the_dock(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, watch: Watch
) -> None:
    add_layer(small_scene, qgis_iface)
    watch.on = True
    dock = open_dock(plugin, qtbot)
    qtbot.mouseClick(dock.run_panel.form.run_button, Qt.MouseButton.LeftButton)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    until(qtbot, lambda: bool(rest_layers()) and rest_layers()[0].source().endswith(".tif"))
    plugin.unload()
    watch.on = False
    assert watch.main == []
    # The same watch does see what the client's thread did.
    assert {"Socket.send", "Socket.recv", "Poller.poll", "open"} <= watch.elsewhere


def test_a_cancelled_run(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, long_scene: Path, watch: Watch
) -> None:
    add_layer(long_scene, qgis_iface)
    watch.on = True
    dock = open_dock(plugin, qtbot)
    qtbot.mouseClick(dock.run_panel.form.run_button, Qt.MouseButton.LeftButton)
    until(qtbot, lambda: bool(rest_layers()))
    qtbot.mouseClick(dock.strip.cancel_button, Qt.MouseButton.LeftButton)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    until(qtbot, lambda: not rest_layers())
    plugin.toolbar.stop_action.trigger()
    until(qtbot, lambda: plugin.toolbar.engine_button.text() == "Off")
    watch.on = False
    assert watch.main == []


def test_the_list_of_jobs_and_coming_back(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, watch: Watch, tmp_path: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    project, output = str(tmp_path / "project.qgs"), tmp_path / "classes.tif"
    qgis_iface.mainWindow().show()
    plugin.link.start()
    until(qtbot, lambda: bool(plugin.link.models))
    watch.on = True
    plugin.toolbar.jobs_action.trigger()
    assert plugin.jobs_panel.isVisible()
    job = plugin.link.segment(order_for(small_scene, output))
    until(qtbot, lambda: len(rest_layers()) == 1)
    assert QgsProject.instance().write(project)
    assert QgsProject.instance().read(project)
    until(qtbot, lambda: job.ended and [layer.source() for layer in rest_layers()] == [str(output)])
    plugin.jobs_panel.table.selectAll()
    for action in (plugin.jobs_panel.load_action, plugin.jobs_panel.copy_action):
        action.trigger()
    plugin.unload()
    watch.on = False
    qgis_iface.mainWindow().hide()
    assert watch.main == []


def test_the_watch_itself_sees_the_main_thread(watch: Watch, tmp_path: Path) -> None:
    watch.on = True
    (tmp_path / "file").write_text("written here")
    time.sleep(0)
    threading.Event().wait(0)
    watch.on = False
    seen = [entry.split(" ")[0] for entry in watch.main]
    assert seen == ["open", "time.sleep", "Event.wait", "Condition.wait"]


def _called_by_thread_start() -> bool:
    frame = sys._getframe(2)
    for _ in range(3):
        if frame is None:
            return False
        if frame.f_code is threading.Thread.start.__code__:
            return True
        frame = frame.f_back
    return False
