"""Make the pictures of the README and the user guide: the real QGIS, the real daemon, the sample scene.

    python3 docs/screenshots/make_screenshot.py

Starts QGIS once on a virtual screen (xvfb-run) with a profile, a home and a daemon of its own,
and ends them all. Needs ``make setup plugin``. Standard library only; the steps inside QGIS
are those of ``drive.py``, which QGIS runs through ``--code``.
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

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SIZE = (1400, 900)
LARGEST = 600_000  # bytes of a picture
PICTURES = ("run", "bands", "area", "confidence", "qgis", "jobs")


def main() -> int:
    """Run QGIS once; returns the exit status."""
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
        command += ["--profile", "default", "--code", str(HERE / "drive.py")]
        try:
            subprocess.run(command, env=environment, timeout=400, check=True)
        finally:
            end_daemon(folder / "rest")
        return keep(folder)


def keep(folder: Path) -> int:
    """Copy the pictures beside this file, all or none; returns the exit status."""
    made = {name: folder / f"{name}.png" for name in PICTURES}
    for name, path in made.items():
        if not path.is_file():
            print(f"QGIS ended without the picture {name}.", file=sys.stderr)
            return 1
        if path.stat().st_size > LARGEST:
            print(f"{name} has {path.stat().st_size} bytes, more than {LARGEST}.", file=sys.stderr)
            return 1
    for name, path in made.items():
        shutil.copyfile(path, HERE / f"{name}.png")
        print(f"docs/screenshots/{name}.png: {path.stat().st_size} bytes")
    return 0


def end_daemon(home: Path) -> None:
    """End the daemon of a home, where QGIS did not get to do it."""
    connection = home / "connection.json"
    if connection.is_file():
        with suppress(ProcessLookupError):
            os.kill(json.loads(connection.read_text(encoding="utf-8"))["pid"], signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
