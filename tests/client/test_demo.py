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


def test_the_preview_is_drawn_from_what_the_daemon_tells_of_a_model(tmp_path, monkeypatch):
    """The daemon's short summary must keep what the demo prints and draws."""
    import numpy as np
    import rasterio

    from rest_backend.bundled import bundled_folder
    from rest_backend.models.zoo import brief, find_model

    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    preview, demo = importlib.import_module("preview"), importlib.import_module("demo")
    scene, classes = bundled_folder("scenes") / "kitsap.tif", tmp_path / "classes.tif"
    with rasterio.open(scene) as source:
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate"}
        profile |= {"width": source.width, "height": source.height}
    with rasterio.open(classes, "w", **profile) as target:
        target.write(np.zeros((profile["height"], profile["width"]), np.uint8), 1)
    card = brief(find_model("kitsap-buildings"))
    preview.draw_preview(scene, classes, card, "no time", tmp_path / "preview.png")
    assert (tmp_path / "preview.png").stat().st_size > 100_000
    assert "precision 0." in demo._class_score(card["score"]["classes"][1])
    assert card["score"]["pixels"] == 1280 * 1280
