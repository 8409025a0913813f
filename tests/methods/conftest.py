"""A tiny model with random weights, so that the methods are tested without the bundled one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rest_backend.methods.verify import randomise
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network
from rest_backend.models.weights import save_weights

ARCHITECTURE = {
    "encoder": "tu-resnet10t",
    "decoder": "unet",
    "parameters": {"decoder_channels": [16, 8, 8, 8, 8]},
}
CLASSES = [
    {"id": 3, "name": "ground", "color": "#101010"},
    {"id": 7, "name": "water", "color": "#0000ff"},
    {"id": 254, "name": "roof", "color": "#ff0000"},
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Card of a three-band, three-class model; its weights lie beside it."""
    return make_model(tmp_path_factory.mktemp("model"), ARCHITECTURE)


def make_model(folder: Path, architecture: dict[str, object]) -> Path:
    torch.manual_seed(0)
    network = build_network(Architecture(**architecture), 3, 3).eval()  # type: ignore[arg-type]
    randomise(network, torch.Generator().manual_seed(0))
    card = {
        "format": 1,
        "id": "tiny",
        "name": "Tiny",
        "architecture": architecture,
        "bands": [{"name": name, "role": name} for name in ("red", "green", "blue")],
        "ground_resolution_m": {"expected": 1.0, "minimum": 0.5, "maximum": 2.0},
        "normalisation": {"method": "scene"},
        "classes": CLASSES,
        "licence": "CC0-1.0",
        "sha256": save_weights(network, folder / "tiny.safetensors"),
    }
    (folder / "tiny.json").write_text(json.dumps(card))
    return folder / "tiny.json"
