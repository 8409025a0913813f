"""The demo runs the command that was just set up, whatever the environment names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("rasterio", reason="the demo runs with the backend's Python")

from rest_qgis.client import ClientError
from rest_qgis.client.launcher import find_command

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_beside_this_python_wins(tmp_path, monkeypatch, capsys):
    if not (Path(sys.executable).parent / "rest-backend").exists():
        pytest.skip("rest-backend is not installed beside this Python")
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    demo = importlib.import_module("demo")
    monkeypatch.setenv("REST_BACKEND", "/nowhere/rest-backend")
    found: list[Path] = []

    def engine(home, command):
        found.append(find_command(str(command)))
        raise ClientError("E_TEST", "No further.")

    monkeypatch.setattr(demo, "Engine", engine)
    monkeypatch.setattr(demo, "FOLDER", tmp_path / "demo")
    assert demo.main() == 1
    assert found == [Path(sys.executable).parent / "rest-backend"]
    assert "No further." in capsys.readouterr().err
