"""How long the plugin holds QGIS's main thread while a large scene is segmented.

A real QGIS with the plugin segments a synthetic scene through the daemon, with the
live layer on the canvas and the list of jobs in sight. Every call of ours that Qt
makes on the main thread is timed from outside: what the client's thread hands over,
timers, slots and events of our widgets. Nothing in the plugin knows of this bench.

Run by the backend's Python like every bench, it starts itself again in QGIS's, under
Xvfb, with ``build/plugin`` (``make plugin``) and the daemon of this checkout.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ASKED = 0.050  # seconds, the longest single call
_ROOMS = ("rest_qgis.gui", "rest_qgis.layers", "rest_qgis.processing", "rest_qgis.plugin")


class Stopwatch:
    """Times the outermost calls of ours on the main thread."""

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.on = False
        self._depth = 0

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, timed where no other call of ours is around it."""
        # A signal may carry more than a slot takes, which PyQt leaves out; this wrapper takes everything.
        code = function.__code__
        most = None if code.co_flags & inspect.CO_VARARGS else code.co_argcount
        bound = getattr(function, "__self__", None) is not None

        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            arguments = given[: None if most is None else most - bound]
            if not self.on or self._depth or threading.current_thread() is not threading.main_thread():
                return function(*arguments, **named)
            self._depth += 1
            start = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                self._depth -= 1
                self.calls[name].append(time.perf_counter() - start)

        return timed

    def wrap_plugin(self) -> None:
        """Put a watch around every method of the plugin's classes, before an object of them is made."""
        from rest_qgis.layers.main_thread import MainThread

        for name, module in list(sys.modules.items()):
            if name.startswith(_ROOMS):
                for made in vars(module).values():
                    if isinstance(made, type) and made.__module__ == name:
                        self._wrap_class(name.removeprefix("rest_qgis."), made)
        run, post = MainThread._run, MainThread.post
        # A wake-up runs all that waits: each of it has its own name, and the wake-up counts as well.
        MainThread._run = self._whole("layers.main_thread.MainThread._run, all in one", run.__wrapped__)
        MainThread.post = lambda main, call: post(main, self.around(_name_of(call), call))

    def _wrap_class(self, room: str, made: type) -> None:
        for name, member in list(vars(made).items()):
            # Constructors run while the plugin loads.
            if isinstance(member, types.FunctionType) and not name.startswith("__"):
                setattr(made, name, self.around(f"{room}.{made.__name__}.{name}", member))

    def _whole(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            function(*arguments)
            if self.on:
                self.calls[name].append(time.perf_counter() - start)

        return timed


class Gaps:
    """The longest time between two beats of the event loop, whoever held it."""

    def __init__(self, timer: Any) -> None:
        self.longest = 0.0
        self._last = time.perf_counter()
        self._timer = timer
        timer.timeout.connect(self._beat)
        timer.start(1)

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last)
        self._last = now

    def stop(self) -> None:
        """Count no more."""
        self._timer.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="pixels a side")
    size = parser.parse_args().size
    if importlib.util.find_spec("qgis") is None:
        sys.exit(_run_in_qgis(size))
    _measure(size)


def _run_in_qgis(size: int) -> int:
    """Start this file again with QGIS's Python."""
    here = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        "PATH": f"{here / '.venv-qgis/bin'}:/usr/bin:/bin",
        "PYTHONPATH": f"{here / 'build/plugin'}:{here}",
        "REST_BACKEND": str(here / ".venv/bin/rest-backend"),
    }
    python = [str(here / ".venv-qgis/bin/python"), __file__, "--size", str(size)]
    command = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24 -dpi 96", *python]
    return subprocess.run(command, env=environment, check=False).returncode


def _measure(size: int) -> None:
    from pytest_qgis.mock_qgis_classes import MockMessageBar
    from pytest_qgis.qgis_interface import QgisInterface
    from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
    from qgis.gui import QgsMapCanvas
    from qgis.PyQt.QtCore import Qt, QTimer
    from qgis.PyQt.QtWidgets import QMainWindow

    from rest_qgis.plugin import RestPlugin
    from rest_qgis.processing.desk import Order
    from rest_qgis.processing.models import DEFAULT_MODEL, Model

    with tempfile.TemporaryDirectory(prefix="rest-bench-") as folder:
        os.environ["REST_HOME"] = f"{folder}/home"
        os.environ["QGIS_CUSTOM_CONFIG_PATH"] = f"{folder}/profile"
        application = QgsApplication([], True, f"{folder}/profile")
        application.initQgis()
        watch = Stopwatch()
        watch.wrap_plugin()
        window = QMainWindow()
        window.resize(1400, 900)
        canvas = QgsMapCanvas(window)
        window.setCentralWidget(canvas)
        interface = QgisInterface(canvas, MockMessageBar(), window)
        plugin = RestPlugin(interface)
        plugin.initGui()
        window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, plugin.dock)
        window.show()

        scene = _make_scene(Path(folder) / "scene.tif", size)
        layer = QgsRasterLayer(str(scene), "scene")
        QgsProject.instance().addMapLayer(layer)
        canvas.setDestinationCrs(layer.crs())
        canvas.setLayers([layer])
        canvas.setExtent(layer.extent())
        QgsProject.instance().layersAdded.connect(
            lambda _layers: canvas.setLayers(
                [node.layer() for node in QgsProject.instance().layerTreeRoot().findLayers()]
            )
        )

        def wait(condition: Callable[[], Any]) -> None:
            while not condition():
                application.processEvents()
                time.sleep(0.0005)

        watch.on = True
        gaps = Gaps(QTimer())
        plugin.toolbar.segment_action.trigger()
        wait(lambda: plugin.link.models)
        plugin.toolbar.jobs_action.trigger()
        model = Model.from_summary(next(m for m in plugin.link.models if m["id"] == DEFAULT_MODEL))
        output = f"{folder}/classes.tif"
        ended: list[str] = []
        plugin.link.job_done.connect(lambda _order, _done: ended.append("done"))
        plugin.link.job_failed.connect(lambda _order, code, text: ended.append(f"{code}: {text}"))
        start = time.perf_counter()
        plugin.link.segment(Order(str(scene), DEFAULT_MODEL, output, model.classes, "bench"))
        wait(lambda: ended and (ended != ["done"] or _sources(QgsProject) == {str(scene), output}))
        seconds = time.perf_counter() - start
        gaps.stop()
        plugin.unload()
        watch.on = False
        closed = threading.Event()
        _end_engine(closed)
        if ended != ["done"]:
            sys.exit(f"the job ended with {ended}")
        _report(size, seconds, watch, gaps)
        QgsProject.instance().clear()
        application.exitQgis()
    longest = max(max(times) for times in watch.calls.values())
    sys.stdout.flush()
    os._exit(0 if longest <= ASKED else 1)  # QGIS's own teardown is not what is measured here


def _report(size: int, seconds: float, watch: Stopwatch, gaps: Gaps) -> None:
    longest = sorted(((max(times), name) for name, times in watch.calls.items()), reverse=True)
    count = sum(len(times) for times in watch.calls.values())
    print(f"{size} x {size}: {seconds:.0f} s from Run to the result on the map, {count} calls of ours\n")
    print("| call | times | longest | together |")
    print("|---|---|---|---|")
    for duration, name in longest[:8]:
        times = watch.calls[name]
        print(f"| `{name}` | {len(times)} | {1000 * duration:.1f} ms | {1000 * sum(times):.0f} ms |")
    print(f"\nlongest single call {1000 * longest[0][0]:.1f} ms (asked: at most {1000 * ASKED:.0f} ms)")
    print(f"longest gap in the event loop, QGIS's own work included: {1000 * gaps.longest:.0f} ms")


def _name_of(call: Callable[..., Any]) -> str:
    return f"posted: {call.__module__.removeprefix('rest_qgis.')}.{call.__qualname__}"


def _sources(project: Any) -> set[str]:
    return {layer.source() for layer in project.instance().mapLayers().values()}


def _end_engine(closed: threading.Event) -> None:
    from rest_qgis.client import Engine

    with Engine() as engine:
        engine.shutdown(lambda _error: closed.set())
        closed.wait(60)


def _make_scene(path: Path, size: int) -> Path:
    """Write an 8-bit scene of fields and buildings, in tiles and with overviews, as imagery is delivered."""
    import numpy as np
    from osgeo import gdal, osr

    random = np.random.default_rng(3)
    scene = gdal.GetDriverByName("GTiff").Create(
        str(path), size, size, 3, gdal.GDT_Byte, ["TILED=YES", "BIGTIFF=IF_SAFER"]
    )
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(26910)
    scene.SetSpatialRef(reference)
    scene.SetGeoTransform((523653.0, 0.3, 0.0, 5267262.0, 0.0, -0.3))
    rows = 256
    for row in range(0, size, rows):
        values = random.integers(60, 110, (3, rows, size), dtype=np.uint8)
        for left in range(40, size - 80, 200):
            values[:, 60:120, left : left + 60] = 210
        scene.WriteArray(values[:, : min(rows, size - row)], 0, row)
    scene.FlushCache()
    scene.BuildOverviews("NEAREST", [2, 4, 8, 16])
    return path


if __name__ == "__main__":
    main()
