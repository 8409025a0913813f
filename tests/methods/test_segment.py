"""Segment: one seamless class map, equal to the whole forward, handed out from the top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from rasterio import Affine

from rest_backend.errors import CancelledError, InputError, ResourceError
from rest_backend.methods.segment import SegmentProgress, SegmentRequest, SegmentStart, segment
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import find_model
from tests.methods.conftest import make_model
from tests.rasters.makers import ROTATED, ramp, write_raster

IDS = np.array([3, 7, 254], dtype=np.uint8)


def _whole_forward(card: Path, values: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Classes from the plain network on the whole scene, by this test's own reading of the card."""
    sample = values[:, valid].astype(np.float64)
    mean, std = sample.mean(axis=1).reshape(-1, 1, 1), sample.std(axis=1).reshape(-1, 1, 1)
    height, width = values.shape[1:]
    padded = np.zeros((3, -(-height // 32) * 32, -(-width // 32) * 32))
    padded[:, :height, :width] = np.where(valid, (values - mean) / std, 0)
    with torch.inference_mode():
        logits = load_model(find_model(card))(torch.from_numpy(padded).float()[None])[0].numpy()
    return np.where(valid, IDS[logits[:, :height, :width].argmax(axis=0)], 255).astype(np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_the_map_equals_the_whole_forward_with_nodata_kept(tmp_path: Path, tiny_model: Path) -> None:
    values = ramp(3, 151, 203, "uint16")
    values[:, 60:75, 10:100] = 0
    scene = write_raster(tmp_path / "scene.tif", values, nodata=0, transform=ROTATED)
    handed: list[tuple[int, NDArray[np.uint8]]] = []
    summary = segment(
        SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu", bands=(1, 2, 3)),
        on_rows=lambda product, row, rows: handed.append((row, rows.copy())),
    )
    valid = (values != 0).any(axis=0)
    expected = _whole_forward(tiny_model, values, valid)
    result = _read(tmp_path / "classes.tif")
    assert np.mean(result != expected) <= 1e-4
    np.testing.assert_array_equal(result == 255, ~valid)
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in handed]), result)
    starts = np.cumsum([0, *(len(rows) for _, rows in handed)])
    assert [row for row, _ in handed] == list(starts[:-1])
    assert summary.valid_pixels == valid.sum()
    assert summary.fallback_ops == []
    assert summary.exact
    assert summary.window == summary.read_window == (0, 0, 203, 151)
    assert [(band["model"], band["band"], band["how"]) for band in summary.bands] == [
        ("red", 1, "given"),
        ("green", 2, "given"),
        ("blue", 3, "given"),
    ]
    with rasterio.open(tmp_path / "classes.tif") as dataset, rasterio.open(scene) as source:
        assert dataset.transform == source.transform == ROTATED
        assert dataset.crs == source.crs
        assert dataset.nodata == 255
        assert dataset.tags()["REST_MODEL"] == "tiny"
        assert len(dataset.tags()["REST_MODEL_SHA256"]) == 64
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_a_barrier_network_hands_out_the_same_map(tmp_path: Path) -> None:
    card = make_model(tmp_path, {"encoder": "tu-resnet10t", "decoder": "fpn"})
    values = ramp(3, 97, 130)
    values[:, :40, :50] = 0
    scene = write_raster(tmp_path / "scene.tif", values, nodata=0)
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(card), device="cpu"))
    expected = _whole_forward(card, values, (values != 0).any(axis=0))
    assert np.mean(_read(tmp_path / "classes.tif") != expected) <= 2e-4
    assert summary.phases == 4


def test_a_window_is_cut_out_of_the_scene(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 90, 120))
    rows: list[int] = []
    starts: list[SegmentStart] = []
    summary = segment(
        SegmentRequest(
            scene, tmp_path / "classes.tif", str(tiny_model), window=(20, 30, 64, 40), device="cpu"
        ),
        on_start=starts.append,
        on_rows=lambda product, row, values: rows.append(row),
    )
    assert starts[0].window == (20, 30, 64, 40)
    assert starts[0].rows == 40
    assert rows[0] == 30
    assert summary.window == (20, 30, 64, 40)
    assert summary.exact
    with rasterio.open(tmp_path / "classes.tif") as dataset, rasterio.open(scene) as source:
        assert dataset.shape == (40, 64)
        assert dataset.transform == source.transform @ Affine.translation(20, 30)


def test_one_pixel_works(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 1, 1))
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"))
    assert summary.valid_pixels == 1
    assert _read(tmp_path / "classes.tif").item() in IDS


def test_a_scene_without_data_gives_nodata_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"))
    assert summary.valid_pixels == 0
    assert any("no data" in note for note in summary.notes)
    assert (_read(tmp_path / "classes.tif") == 255).all()


def test_a_scene_without_reference_system_works_and_says_so(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 40, 50), crs=None, transform=None)
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"))
    assert any("reference system" in note for note in summary.notes)
    with rasterio.open(tmp_path / "classes.tif") as dataset:
        assert dataset.crs is None


def test_bands_are_found_by_what_they_show(tmp_path: Path, tiny_model: Path) -> None:
    values = ramp(5, 40, 50)
    names = ("nir", "blue", "swir1", "red", "green")
    scene = write_raster(tmp_path / "scene.tif", values, names=names)
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"))
    assert [band["band"] for band in summary.bands] == [4, 5, 2]
    expected = _whole_forward(tiny_model, values[[3, 4, 1]], np.ones((40, 50), bool))
    assert np.mean(_read(tmp_path / "classes.tif") != expected) <= 1e-3
    with rasterio.open(tmp_path / "classes.tif") as dataset:
        assert dataset.tags()["REST_BANDS"] == "4,5,2"
        assert json.loads(dataset.tags()["REST_BAND_MATCH"])[0] == {"model": "red", "band": 4, "how": "name"}


def test_an_assumed_order_is_told(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(6, 40, 50, "uint16"))
    summary = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"))
    assert [band["band"] for band in summary.bands] == [3, 2, 1]
    assert any("band 3 as red" in note for note in summary.notes)


def test_progress_goes_through_its_stages(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 300, 40))
    told: list[SegmentProgress] = []
    segment(
        SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu"),
        on_progress=told.append,
    )
    stages = list(dict.fromkeys(progress.stage for progress in told))
    assert stages == ["loading", "statistics", "planning", "sweep", "writing"]
    done = [progress.rows_done for progress in told]
    assert done == sorted(done)
    assert done[-1] == 300
    assert told[-1].device == "cpu"
    assert told[-1].memory_bytes > 10**7


@pytest.mark.parametrize("after", ["loading", "statistics", "sweep"])
def test_cancel_leaves_nothing_behind(tmp_path: Path, tiny_model: Path, after: str) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 600, 64))
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / "classes.tif"
    old.write_bytes(b"an older result")
    stages: list[str] = []
    with pytest.raises(CancelledError):
        segment(
            SegmentRequest(scene, old, str(tiny_model), device="cpu"),
            on_progress=lambda progress: stages.append(progress.stage),
            cancelled=lambda: after in stages,
        )
    assert "writing" not in stages
    assert list(old.parent.iterdir()) == [old]
    assert old.read_bytes() == b"an older result"


def _bad(tmp_path: Path, name: str) -> dict[str, Any]:
    good = write_raster(tmp_path / "good.tif", ramp(3, 40, 50))
    if name == "not a raster":
        good.write_text("not a raster")
    if name == "complex":
        write_raster(good, (ramp(3, 40, 50, "float32") * (1 + 1j)).astype(np.complex64))
    if name == "two bands":
        write_raster(good, ramp(2, 40, 50))
    if name == "nine bands":
        write_raster(good, ramp(9, 40, 50))
    return {
        "complex": {"bands": (1, 2, 3)},
        "missing": {"scene": tmp_path / "missing.tif"},
        "no folder": {"output": tmp_path / "no" / "folder" / "classes.tif"},
        "folder is a file": {"output": good / "classes.tif"},
        "unknown model": {"model": "no-such-model"},
        "window outside": {"window": (10, 10, 500, 5)},
        "empty window": {"window": (0, 0, 0, 5)},
        "no such device": {"device": "cuda:99"},
        "too little memory": {"memory_bytes": 10**6},
        "band that is not there": {"bands": (1, 2, 4)},
        "band twice": {"bands": (1, 2, 1)},
        "two bands given": {"bands": (1, 2)},
        "no resolution": {"resolution_m": 0.0},
        "tiny resolution": {"resolution_m": 1e-4},
        "same file twice": {"confidence": tmp_path / "classes.tiff"},
        "scores into no folder": {"probabilities": tmp_path / "no" / "scores.tif"},
        "scores over the scene": {"confidence": good},
    }.get(name, {})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("missing", "E_SCENE_MISSING"),
        ("not a raster", "E_SCENE_NOT_RASTER"),
        ("complex", "E_SCENE_COMPLEX"),
        ("two bands", "E_BANDS_UNSURE"),
        ("nine bands", "E_BANDS_UNSURE"),
        ("band that is not there", "E_SCENE_BANDS"),
        ("band twice", "E_BANDS_TWICE"),
        ("two bands given", "E_BANDS_COUNT"),
        ("no resolution", "E_RESOLUTION"),
        ("tiny resolution", "E_RESOLUTION"),
        ("same file twice", "E_OUTPUT_TWICE"),
        ("scores into no folder", "E_OUTPUT_FOLDER"),
        ("scores over the scene", "E_OUTPUT_IS_SCENE"),
        ("no folder", "E_OUTPUT_FOLDER"),
        ("folder is a file", "E_OUTPUT_FOLDER"),
        ("unknown model", "E_MODEL_UNKNOWN"),
        ("window outside", "E_WINDOW"),
        ("empty window", "E_WINDOW"),
        ("no such device", "E_DEVICE"),
        ("too little memory", "E_MEMORY"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_left(
    tmp_path: Path, tiny_model: Path, name: str, code: str
) -> None:
    change = _bad(tmp_path, name)
    before = sorted(tmp_path.rglob("*"))
    request = {
        "scene": tmp_path / "good.tif",
        "output": tmp_path / "classes.tif",
        "model": str(tiny_model),
        "device": "cpu",
    }
    with pytest.raises((InputError, ResourceError)) as caught:
        segment(SegmentRequest(**(request | change)))
    assert caught.value.code == code
    assert len(caught.value.message.split()) >= 5
    assert sorted(tmp_path.rglob("*")) == before
