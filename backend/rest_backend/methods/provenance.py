"""Provenance: the metadata that says how a result was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import rest_backend
from rest_backend.methods.bands import BandMatch
from rest_backend.methods.request import SegmentRequest, Window
from rest_backend.models.card import ModelCard

_PACKAGES = ("torch", "timm", "segmentation-models-pytorch", "numpy", "rasterio")


def provenance_tags(
    request: SegmentRequest, card: ModelCard, bands: Sequence[BandMatch], window: Window
) -> dict[str, str]:
    """Tags of every file of a result.

    Args:
        request: What was asked.
        card: The model's card.
        bands: Which bands were read as what.
        window: Column, row, width, height of the result in the scene, in pixels.

    Returns:
        TIFF metadata, without paths of this computer.
    """
    parameters = {
        "window": window,
        "area": None if request.aoi is None else Path(request.aoi).name,
        "resolution_m": request.resolution_m,
        "context": request.context,
        "seed": request.seed,
    }
    mapping = [{"model": match.model, "band": match.band, "how": match.how} for match in bands]
    versions = {"rest-backend": rest_backend.__version__, **{name: version(name) for name in _PACKAGES}}
    return {
        "REST_METHOD": "segment",
        "REST_MODEL": card.id,
        "REST_MODEL_SHA256": card.sha256,
        "REST_BANDS": ",".join(str(match.band) for match in bands),
        "REST_BAND_MATCH": json.dumps(mapping),
        "REST_SCENE": Path(request.scene).name,
        "REST_PARAMETERS": json.dumps(parameters),
        "REST_VERSIONS": json.dumps(versions),
    }
