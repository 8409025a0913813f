"""The plugin's modules under Qt 6, each group in a process of its own, with no other Qt and no QGIS in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.qt6 import modules

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "qt6.md"


@pytest.mark.parametrize("file", ["check_qt_alone.py", "check_with_fakes.py"])
def test_under_qt_6(file: str, tmp_path: Path) -> None:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)}
    start = [sys.executable, "-c", "import PyQt6.QtWidgets"]
    loaded = subprocess.run(start, capture_output=True, text=True, timeout=60, env=environment)
    if loaded.returncode != 0 and "libEGL" in loaded.stderr:
        pytest.skip("Qt 6 needs the system's libEGL")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-o", "python_files=check_*.py", str(Path(__file__).parent / file)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env=environment, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b[1-9]\d* passed", done.stdout)
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("heading", "names"), [("Qt alone", modules.qt_alone()), ("With fakes", modules.with_qgis())]
)
def test_page_lists_them(heading: str, names: list[str]) -> None:
    """A module that moves from one list to the other, or a new one, changes the page."""
    section = re.search(rf"^## {heading}: (\d+) modules\n(.*?)(?=^## |\Z)", _page(), re.M | re.S)
    assert section is not None
    assert int(section[1]) == len(names)
    assert re.findall(r"`(rest_qgis[\w.]*)`", section[2]) == names


def test_page_counts_the_fakes() -> None:
    counted = re.search(r"(\d+) fakes", _page())
    assert counted is not None
    assert int(counted[1]) == len(modules.names_of_qgis())


def _page() -> str:
    return PAGE.read_text(encoding="utf-8")
