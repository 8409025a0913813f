"""The model and the scene that ship: their card must tell the truth about both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import Window
from torch import nn

from rest_backend.bundled import bundled_folder
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import find_model

ORIGIN = (523650.0, 5267268.0)  # metres, EPSG:26910


@pytest.fixture(scope="module")
def model():
    return find_model("kitsap-buildings")


@pytest.fixture(scope="module")
def network(model):
    return load_model(model)


@pytest.fixture
def scene(model):
    with rasterio.open(bundled_folder("scenes") / model.card.score.scene) as dataset:
        yield dataset


def test_the_files_are_small(model, scene):
    assert model.bundled
    assert model.weights_path.stat().st_size <= 12_000_000
    assert sum(path.stat().st_size for path in bundled_folder("scenes").iterdir()) <= 6_000_000


def test_no_layer_looks_at_the_whole_scene(network):
    whole = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)
    assert [name for name, module in network.named_modules() if isinstance(module, whole)] == []


def test_the_score_adds_up(model):
    score = model.card.score
    confusion = np.array(score.confusion)
    assert confusion.sum() == score.pixels == math.prod(score.window[2:])
    assert [entry.id for entry in score.classes] == [entry.id for entry in model.card.classes]
    for index, entry in enumerate(score.classes):
        hits, labelled, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
        assert entry.pixels == labelled
        assert entry.iou == pytest.approx(hits / (labelled + predicted - hits), abs=1e-4)
        assert entry.precision == pytest.approx(hits / predicted, abs=1e-4)
        assert entry.recall == pytest.approx(hits / labelled, abs=1e-4)


def test_the_card_says_what_the_labels_are_worth(model):
    assert "1-3 m beside the roofs" in model.card.limits
    assert "1-3 m" in model.card.score.note


def test_the_test_labels_are_those_of_the_block(model, scene):
    score = model.card.score
    with rasterio.open(bundled_folder("scenes") / score.labels) as labels:
        assert labels.transform == scene.window_transform(Window(*score.window))
        assert labels.shape == (score.window[3], score.window[2])
        assert int(labels.read(1).sum()) == score.classes[1].pixels


def test_the_scene_is_a_compressed_cog_at_its_place(scene):
    assert scene.crs.to_epsg() == 26910
    assert scene.transform.to_gdal() == (ORIGIN[0], 0.3, 0.0, ORIGIN[1], 0.0, -0.3)
    assert (scene.count, scene.height, scene.width) == (3, 2560, 2560)
    assert scene.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert scene.compression.name == "jpeg"
    assert scene.overviews(1)


def test_the_scene_is_the_source_but_for_compression(scene, shared_data):
    window = Window(1000, 1000, 512, 512)
    with rasterio.open(shared_data / "building_kitsap" / "kitsap_rgb.tif") as source:
        difference = scene.read(window=window).astype(int) - source.read(window=window)
    assert np.abs(difference).mean() < 3


def test_the_model_finds_the_buildings_of_the_test_block(model, network, scene):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    imagery = scene.read()
    mean, std = (
        getattr(imagery, name)(axis=(1, 2), keepdims=True, dtype=np.float64) for name in ("mean", "std")
    )
    column, row = 1280 + 640, 1280 + 640
    crop = imagery[:, row : row + 512, column : column + 512]
    with torch.inference_mode():
        logits = network(torch.from_numpy(((crop - mean) / std).astype(np.float32))[None])
    torch.set_num_threads(threads)
    found = logits[0].argmax(dim=0).numpy() == 1
    with rasterio.open(bundled_folder("scenes") / model.card.score.labels) as labels:
        labelled = labels.read(1, window=Window(640, 640, 512, 512)) == 1
    assert labelled.mean() > 0.03
    assert (found & labelled).sum() / (found | labelled).sum() > 0.45
