"""Make docs/screenshots/qgis.png: the real QGIS, the real daemon, the sample scene, half done.

    python3 docs/screenshots/make_screenshot.py

Starts QGIS on a virtual screen (xvfb-run) with a profile, a home and a daemon of its own,
and ends them all. Needs ``make setup plugin``. Standard library only; the steps inside QGIS
are :func:`drive`, which QGIS runs through ``--code``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2] if "__file__" in globals() else None
SIZE = (1400, 900)
LARGEST = 600_000  # bytes of the picture
SHARE = 0.55  # of the rows that are done when the picture is taken


def main() -> int:
    """Run QGIS once; returns the exit status."""
    target = REPOSITORY / "docs" / "screenshots" / "qgis.png"
    with tempfile.TemporaryDirectory(prefix="rest-screenshot-") as scratch:
        folder = Path(scratch)
        profile = folder / "profiles" / "profiles" / "default"
        (profile / "python" / "plugins").mkdir(parents=True)
        (profile / "QGIS").mkdir()
        built = REPOSITORY / "build" / "plugin" / "rest_qgis"
        shutil.copytree(built, profile / "python" / "plugins" / "rest_qgis")
        (profile / "QGIS" / "QGIS3.ini").write_text("[PythonPlugins]\nrest_qgis=true\nprocessing=true\n")
        # QGIS writes beside what it opens, so it opens a copy.
        shutil.copyfile(REPOSITORY / "resources" / "scenes" / "kitsap.tif", folder / "kitsap.tif")
        for name in ("home", "run", "rest"):
            (folder / name).mkdir(mode=0o700)
        # Run as text: nothing of this file's place is known inside QGIS.
        script = folder / "drive.py"
        script.write_text(Path(__file__).read_text(encoding="utf-8") + "\n\ndrive()\n", encoding="utf-8")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("QT_", "PYTHON"))},
            "HOME": str(folder / "home"),
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "QT_QPA_PLATFORM": "xcb",
            "LANG": "C.UTF-8",
            "PATH": f"{REPOSITORY / '.venv-qgis' / 'bin'}:/usr/bin:/bin",
            "REST_HOME": str(folder / "rest"),
            "REST_BACKEND": str(REPOSITORY / ".venv" / "bin" / "rest-backend"),
            "REST_SCREENSHOT": scratch,
        }
        command = ["xvfb-run", "-a", "-s", f"-screen 0 {SIZE[0]}x{SIZE[1]}x24 -dpi 96"]
        command += ["qgis", "--noversioncheck", "--nologo", "--profiles-path", str(folder / "profiles")]
        command += ["--profile", "default", "--code", str(script)]
        try:
            subprocess.run(command, env=environment, timeout=600, check=True)
        finally:
            end_daemon(folder / "rest")
        made = folder / "qgis.png"
        if not made.is_file():
            print("QGIS ended without a picture.", file=sys.stderr)
            return 1
        if made.stat().st_size > LARGEST:
            print(f"The picture has {made.stat().st_size} bytes, more than {LARGEST}.", file=sys.stderr)
            return 1
        shutil.copyfile(made, target)
        print(f"{target.relative_to(REPOSITORY)}: {target.stat().st_size} bytes")
    return 0


def end_daemon(home: Path) -> None:
    """End the daemon of a home, where QGIS did not get to do it."""
    connection = home / "connection.json"
    if connection.is_file():
        with suppress(ProcessLookupError):
            os.kill(json.loads(connection.read_text(encoding="utf-8"))["pid"], signal.SIGTERM)


def drive() -> None:
    """Inside QGIS: open the scene, press the buttons, take the picture, leave."""
    from qgis.core import QgsProject, QgsRasterLayer
    from qgis.PyQt.QtCore import QSize, Qt, QTimer
    from qgis.PyQt.QtGui import QImage
    from qgis.PyQt.QtWidgets import QDockWidget
    from qgis.utils import iface, plugins

    folder = Path(os.environ["REST_SCREENSHOT"])
    plugin = plugins["rest_qgis"]
    window, canvas = iface.mainWindow(), iface.mapCanvas()
    state = {"step": 0}

    def arrange() -> bool:
        window.setGeometry(0, 0, *SIZE)
        browser = window.findChild(QDockWidget, "Browser")
        if browser is not None:
            browser.hide()
        layer = QgsRasterLayer(str(folder / "kitsap.tif"), "kitsap")
        QgsProject.instance().addMapLayer(layer)
        iface.setActiveLayer(layer)
        plugin.toolbar.segment_action.trigger()
        layers = window.findChild(QDockWidget, "Layers")
        window.resizeDocks([layers, plugin.dock], [310, 330], Qt.Orientation.Horizontal)
        return True

    def zoom() -> bool:
        if plugin.dock.model_combo.count() == 0:
            return False
        canvas.zoomToFullExtent()
        canvas.zoomByFactor(0.98)
        return True

    def run() -> bool:
        if canvas.isDrawing():
            return False
        plugin.dock.run_button.click()
        return True

    def photograph() -> bool:
        bar = plugin.dock.progress_bar
        if bar.maximum() <= 1 or bar.value() < SHARE * bar.maximum() or canvas.isDrawing():
            return False
        picture = window.grab().toImage().scaled(QSize(*SIZE), Qt.AspectRatioMode.KeepAspectRatio)
        picture = picture.convertToFormat(QImage.Format.Format_RGB888)
        for colors in (None, QImage.Format.Format_Indexed8):
            if colors is not None:
                picture = picture.convertToFormat(colors, Qt.ImageConversionFlag.DiffuseDither)
            picture.save(str(folder / "qgis.png"), "PNG", 0)
            if (folder / "qgis.png").stat().st_size <= LARGEST:
                break
        plugin.dock.cancel_button.click()
        return True

    def leave() -> bool:
        if not plugin.dock.run_button.isEnabled():
            return False
        plugin.link.stop()
        return True

    def end() -> bool:
        if plugin.toolbar.engine_button.text() != "Off":
            return False
        QgsProject.instance().clear()
        iface.actionExit().trigger()
        return True

    steps = (arrange, zoom, run, photograph, leave, end)

    def tick() -> None:
        if state["step"] < len(steps) and steps[state["step"]]():
            state["step"] += 1

    timer = QTimer(window)
    timer.timeout.connect(tick)
    timer.start(300)


if __name__ == "__main__" and "REST_SCREENSHOT" not in os.environ:
    sys.exit(main())
