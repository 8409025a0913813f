"""Another resolution: the network sees a resampled scene, the result stays on the scene's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from rest_backend.errors import InputError
from rest_backend.methods.grid import RunGrid, run_grid
from rest_backend.methods.network_input import NetworkInput, normalisation
from rest_backend.methods.segment import SegmentRequest, segment
from rest_backend.models.card import Normalisation
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import find_model
from rest_backend.rasters.resampled import resampled
from rest_backend.rasters.scene import open_scene
from tests.rasters.makers import ramp, write_raster

METRE = Affine(1.0, 0.0, 500_000.0, 0.0, -1.0, 5_000_000.0)
IDS = np.array([3, 7, 254], dtype=np.uint8)


@pytest.mark.parametrize(("scene", "run"), [(10, 10), (10, 4), (7, 20), (13, 12), (1, 3), (5, 1)])
def test_a_pixel_takes_the_run_pixel_its_centre_lies_in(scene: int, run: int) -> None:
    grid = RunGrid(scene, scene, run, run)
    expected = [int((at + 0.5) / scene * run) for at in range(scene)]
    assert grid.run_columns((0, 0, scene, 1)).tolist() == expected
    assert grid.run_rows((0, 0, 1, scene)).tolist() == expected
    for first in range(scene):
        for count in range(1, scene - first + 1):
            column, row, width, height = grid.run_window((first, first, count, count))
            wanted = expected[first : first + count]
            assert (column, column + width - 1) == (row, row + height - 1) == (wanted[0], wanted[-1])
            column, _, width, _ = grid.scene_window((column, row, width, height))
            touched = range(column, column + width)
            assert column >= 0 and column + width <= scene
            assert all(first + at in touched for at in range(count)) or run > scene


def _segment(scene: Path, output: Path, card: Path, **asked: Any) -> Any:
    return segment(SegmentRequest(scene, output, str(card), device="cpu", **asked))


def _read(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize(
    ("resolution", "size"), [(1.9, (79, 105)), (0.7, (214, 286))], ids=["coarser", "finer"]
)
def test_the_network_sees_the_resampled_scene(
    tmp_path: Path, tiny_model: Path, resolution: float, size: tuple[int, int]
) -> None:
    values = ramp(3, 150, 200)
    values[:, 40:60, 100:130] = 0
    scene = write_raster(tmp_path / "scene.tif", values, nodata=0, transform=METRE, crs="EPSG:32633")
    summary = _segment(scene, tmp_path / "classes.tif", tiny_model, resolution_m=resolution)
    # UTM's scale at its central meridian makes a pixel 1.0004 m on the ground
    assert (summary.run_height, summary.run_width) == pytest.approx(size, abs=1)
    height, width = summary.run_height, summary.run_width
    with open_scene(scene) as opened:
        seen, valid = resampled(opened, width, height).read(0, height)
    sample = seen[:, valid].astype(np.float64)
    mean, std = sample.mean(axis=1).reshape(-1, 1, 1), sample.std(axis=1).reshape(-1, 1, 1)
    padded = np.zeros((3, -(-height // 32) * 32, -(-width // 32) * 32))
    padded[:, :height, :width] = np.where(valid, (seen - mean) / std, 0)
    with torch.inference_mode():
        logits = load_model(find_model(tiny_model))(torch.from_numpy(padded).float()[None])[0].numpy()
    rows = ((np.arange(150) + 0.5) * height / 150).astype(int)
    columns = ((np.arange(200) + 0.5) * width / 200).astype(int)
    expected = IDS[logits.argmax(axis=0)[np.ix_(rows, columns)]]
    result = _read(tmp_path / "classes.tif")
    np.testing.assert_array_equal(result == 255, (values[0] == 0) | ~valid[np.ix_(rows, columns)])
    shown = result != 255
    assert np.mean(result[shown] != expected[shown]) <= 1e-3
    with rasterio.open(tmp_path / "classes.tif") as dataset:
        assert dataset.transform == METRE
    window = (60, 30, 81, 55)
    _segment(scene, tmp_path / "part.tif", tiny_model, resolution_m=resolution, window=window)
    np.testing.assert_array_equal(_read(tmp_path / "part.tif"), result[30:85, 60:141])


def test_a_resolution_far_from_the_models_is_told_with_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    transform = METRE @ Affine.scale(5.0)  # the model was made for 0.5 to 2 m
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 40, 50), transform=transform, crs="EPSG:32633")
    far = _segment(scene, tmp_path / "far.tif", tiny_model)
    (note,) = [note for note in far.notes if "per pixel" in note]
    assert "5 m" in note and "0.5 to 2 m" in note and "resolution of 1 m" in note
    near = _segment(scene, tmp_path / "near.tif", tiny_model, resolution_m=1.5)
    assert not [note for note in near.notes if "per pixel" in note]
    assert (near.run_width, near.run_height) == pytest.approx((167, 133), abs=1)


@pytest.mark.parametrize("resolution", [1e-308, 0.01, 100.0, 1e308, float("nan"), float("inf"), -1.0])
def test_a_resolution_that_is_none_of_a_scene_is_refused(resolution: float) -> None:
    with pytest.raises(InputError) as caught:
        run_grid(100_000, 50, 1.0, resolution)
    assert caught.value.code == "E_RESOLUTION"


def test_a_scene_that_lies_nowhere_has_no_resolution(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 40, 50), crs=None, transform=None)
    with pytest.raises(InputError, match="how large its pixels are") as caught:
        _segment(scene, tmp_path / "classes.tif", tiny_model, resolution_m=1.0)
    assert caught.value.code == "E_RESOLUTION"


@pytest.mark.parametrize("declared", [False, True])
def test_declared_scales_replace_the_cards(tmp_path: Path, tiny_model: Path, declared: bool) -> None:
    """A card for reflectance reads the same from plain counts and from a raster that declares its scale."""
    counts = ramp(3, 32, 40, "uint16")
    scene = write_raster(tmp_path / "scene.tif", counts)
    if declared:
        with rasterio.open(scene, "r+") as dataset:
            dataset.scales, dataset.offsets = (2e-4,) * 3, (-0.1,) * 3
    card = find_model(tiny_model).card
    bands = [type(band)(name=band.name, role=band.role, scale=1e-4) for band in card.bands]
    fixed = Normalisation(method="fixed", mean=[0.5, 0.6, 0.7], std=[0.1, 0.2, 0.3])
    fields = {name: getattr(card, name) for name in card.__struct_fields__}
    card = type(card)(**(fields | {"bands": bands, "normalisation": fixed}))
    with open_scene(scene) as opened:
        source = NetworkInput(opened, (0, 0, 64, 32), normalisation(opened, card, 0, lambda: False))
        rows = source.read_rows(0, 32)[0].numpy()
    reflectance = counts * 2e-4 - 0.1 if declared else counts * 1e-4
    expected = (reflectance - np.reshape(fixed.mean, (3, 1, 1))) / np.reshape(fixed.std, (3, 1, 1))
    np.testing.assert_allclose(rows[:, :, :40], expected, atol=1e-4)
    assert (rows[:, :, 40:] == 0).all()
