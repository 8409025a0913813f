"""The installed engine for tests of the whole chain: scenes, requests, and what must come of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rest_qgis.client import JobRequest
from tests.client.conftest import Recorder

COMMAND = Path(sys.executable).parent / "rest-backend"
MODEL = "kitsap-buildings"
PATIENCE = 240.0  # seconds; the machine may be busy

needs_engine = [
    pytest.mark.skipif(not COMMAND.exists(), reason="rest-backend is not installed beside this Python"),
    pytest.mark.timeout(600),
]


def make_scene(path: Path, width: int, height: int) -> Path:
    """A scene with blocks of grey and colour, three bands, 0.3 m."""
    random = np.random.default_rng(3)
    coarse = random.integers(30, 220, (3, -(-height // 16), -(-width // 16)), dtype=np.uint8)
    pixels = coarse.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 3,
        "width": width,
        "height": height,
        "tiled": True,
    }
    transform = from_origin(500_000, 5_000_000, 0.3, 0.3)
    with rasterio.open(path, "w", crs="EPSG:26910", transform=transform, **profile) as file:
        file.write(pixels)
    return path


def request_for(scene: Path, output: Path, **fields: object) -> JobRequest:
    return JobRequest(str(scene), MODEL, str(output), **fields)


def check_result(listener: Recorder, output: Path, size: tuple[int, int]) -> None:
    """The rows that came, put together, are the class map on disk: no gap, nothing twice."""
    assert [block.seq for block in listener.blocks] == list(range(len(listener.blocks)))
    check_product(listener, "classes", output, 1, size)


def check_product(listener: Recorder, product: str, file: Path, band: int, size: tuple[int, int]) -> None:
    """All rows of one product came once, and are that band of the file."""
    width, height = size
    assembled = np.full((height, width), 254, np.uint8)
    filled = np.zeros((height, width), bool)
    for block in listener.blocks:
        if block.product != product:
            continue
        part = np.s_[block.row : block.row + block.height, block.column : block.column + block.width]
        assert not filled[part].any()
        filled[part] = True
        assembled[part] = np.frombuffer(block.values, np.uint8).reshape(block.height, block.width)
    assert filled.all()
    with rasterio.open(file) as written:
        assert (written.width, written.height) == size
        np.testing.assert_array_equal(written.read(band), assembled)


def running(listener: Recorder) -> bool:
    """Whether rows have come and more will."""
    return bool(listener.blocks) and not listener.ended.is_set()
