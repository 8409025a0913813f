"""Confidence and probabilities: the softmax of the whole forward as bytes; all files appear, or none."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray

from rest_backend.errors import InputError
from rest_backend.methods.products import FULL_SCORE
from rest_backend.methods.segment import SegmentRequest, SegmentStart, segment
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import find_model
from tests.rasters.makers import ramp, write_raster

PRODUCTS = ("classes", "confidence", "probability-3", "probability-7", "probability-254")


def _softmax(card: Path, values: NDArray[Any]) -> NDArray[np.float32]:
    """Softmax of the plain network on the whole scene: float32 (classes, rows, columns)."""
    exact = values.astype(np.float64)
    mean, std = exact.mean(axis=(1, 2), keepdims=True), exact.std(axis=(1, 2), keepdims=True)
    height, width = values.shape[1:]
    padded = np.zeros((3, -(-height // 32) * 32, -(-width // 32) * 32))
    padded[:, :height, :width] = (values - mean) / std
    with torch.inference_mode():
        logits = load_model(find_model(card))(torch.from_numpy(padded).float()[None])[0]
    return torch.softmax(logits, 0)[:, :height, :width].numpy()


def test_scores_are_the_softmax_of_the_whole_forward(tmp_path: Path, tiny_model: Path) -> None:
    values = ramp(3, 75, 110)
    scene = write_raster(tmp_path / "scene.tif", values)
    handed: dict[str, list[tuple[int, NDArray[np.uint8]]]] = defaultdict(list)
    starts: list[SegmentStart] = []
    names = ("classes.tif", "confidence.tif", "probabilities.tif")
    output, confidence, probabilities = (tmp_path / name for name in names)
    summary = segment(
        SegmentRequest(
            scene,
            output,
            str(tiny_model),
            device="cpu",
            confidence=confidence,
            probabilities=probabilities,
        ),
        on_start=starts.append,
        on_rows=lambda product, row, rows: handed[product].append((row, rows.copy())),
    )
    expected = np.round(_softmax(tiny_model, values) * FULL_SCORE)
    with rasterio.open(probabilities) as dataset:
        scores = dataset.read()
        assert dataset.descriptions == ("ground", "water", "roof")
        assert dataset.nodatavals == (255,) * 3
        assert dataset.scales == pytest.approx((1 / 254,) * 3)
        assert dataset.tags()["REST_MODEL"] == "tiny"
    with rasterio.open(confidence) as dataset:
        best = dataset.read(1)
    assert np.abs(scores - expected).max() <= 1
    np.testing.assert_array_equal(best, scores.max(axis=0))
    with rasterio.open(output) as dataset:
        planes = dict(zip(PRODUCTS, [dataset.read(1), best, *scores], strict=True))
    assert starts[0].products == tuple(handed) == PRODUCTS
    for name, blocks in handed.items():
        np.testing.assert_array_equal(np.concatenate([rows for _, rows in blocks]), planes[name])
        ends = np.cumsum([0, *(len(rows) for _, rows in blocks)])
        assert [row for row, _ in blocks] == list(ends[:-1])
    assert (summary.confidence, summary.probabilities) == (str(confidence), str(probabilities))
    assert not [path for path in starts[0].temporary_paths if path.exists()]


def test_nodata_is_the_same_in_every_product(tmp_path: Path, tiny_model: Path) -> None:
    values = ramp(3, 75, 110)
    values[:, 20:40, 30:70] = 0
    scene = write_raster(tmp_path / "scene.tif", values, nodata=0)
    segment(
        SegmentRequest(
            scene,
            tmp_path / "classes.tif",
            str(tiny_model),
            device="cpu",
            window=(10, 10, 90, 60),
            confidence=tmp_path / "confidence.tif",
        )
    )
    for name in ("classes.tif", "confidence.tif"):
        with rasterio.open(tmp_path / name) as dataset:
            np.testing.assert_array_equal(dataset.read(1) == 255, (values[0] == 0)[10:70, 10:100])


@pytest.mark.parametrize("held", ["classes.tif", "confidence.tif", "classes.qml"])
def test_an_output_in_use_leaves_every_older_file_as_it_was(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 75, 110))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "classes.tif").write_bytes(b"an older map")
    (folder / "confidence.tif").write_bytes(b"older scores")
    (folder / "classes.qml").write_bytes(b"a style")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    replace = os.replace

    def refuse(source: Any, place: Any) -> None:  # as Windows does while QGIS shows the layer
        if Path(place).name == held and Path(source).suffix != ".old":
            raise PermissionError(13, "The process cannot access the file", str(source))
        replace(source, place)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError) as caught:
        segment(
            SegmentRequest(
                scene,
                folder / "classes.tif",
                str(tiny_model),
                device="cpu",
                confidence=folder / "confidence.tif",
            )
        )
    assert caught.value.code == "E_OUTPUT_IN_USE"
    assert held in caught.value.message
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_older_file_that_cannot_be_brought_back_is_not_deleted(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 75, 110))
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "classes.tif").write_bytes(b"an older map")
    (folder / "confidence.tif").write_bytes(b"older scores")
    replace = os.replace

    def refuse(source: Any, place: Any) -> None:  # the new scores were opened as soon as they were there
        if Path(place).name == "classes.tif" or Path(source).suffix == ".old":
            raise PermissionError(13, "The process cannot access the file", str(source))
        replace(source, place)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match="classes.tif"):
        segment(
            SegmentRequest(
                scene,
                folder / "classes.tif",
                str(tiny_model),
                device="cpu",
                confidence=folder / "confidence.tif",
            )
        )
    contents = {path.read_bytes() for path in folder.iterdir()}
    assert {b"an older map", b"older scores"} <= contents
