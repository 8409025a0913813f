"""The command line in this process, and a tiny model for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rasterio

from rest_backend.cli import main
from tests.methods.conftest import ARCHITECTURE, make_model

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; gives its exit code and what it wrote to stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Card of a three-band, three-class model; its weights lie beside it."""
    return make_model(tmp_path_factory.mktemp("model"), ARCHITECTURE)


def read_json(text: str) -> dict[str, Any]:
    """What a command printed with ``--json``: exactly one line."""
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return dict(json.loads(text))


def write_area(path: Path, scene: Path, window: tuple[int, int, int, int]) -> Path:
    """A GeoJSON file with one rectangle, the pixels of a window (column, row, width, height)."""
    column, row, width, height = window
    with rasterio.open(scene) as opened:
        corners = [
            (column, row),
            (column + width, row),
            (column + width, row + height),
            (column, row + height),
        ]
        ring = [opened.xy(line, pixel, offset="ul") for pixel, line in [*corners, corners[0]]]
        name = f"urn:ogc:def:crs:EPSG::{opened.crs.to_epsg()}"
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    crs = {"type": "name", "properties": {"name": name}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    return path
