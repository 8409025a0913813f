"""A small model on disk, whole and in every broken way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Card = dict[str, Any]


@pytest.fixture
def card() -> Card:
    """A valid card of a network of half a million parameters; tests change it."""
    return {
        "format": 1,
        "id": "small",
        "name": "Small",
        "architecture": {
            "encoder": "tu-mobilenetv3_small_050",
            "decoder": "unet",
            "parameters": {"decoder_channels": [16, 8, 8, 8, 8]},
        },
        "bands": [{"name": name, "role": name} for name in ("red", "green", "blue", "nir")],
        "ground_resolution_m": {"expected": 1.0, "minimum": 0.5, "maximum": 2.0},
        "normalisation": {"method": "scene"},
        "classes": [
            {"id": 0, "name": "ground", "color": "#101010"},
            {"id": 7, "name": "water", "color": "#0000ff"},
            {"id": 254, "name": "roof", "color": "#ff0000"},
        ],
        "licence": "CC0-1.0",
        "sha256": "0" * 64,
    }


@pytest.fixture
def write_card(tmp_path: Path) -> Callable[[Card | str | bytes], Path]:
    """Write a card (or raw text) to ``small.json`` of an empty folder."""

    def write(content: Card | str | bytes) -> Path:
        path = tmp_path / "small.json"
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
