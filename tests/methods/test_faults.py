"""A scene that changes under the job, a disk that fills up: a sentence, and nothing is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rest_backend.errors import InputError, ResourceError
from rest_backend.methods.segment import SegmentRequest, SegmentStart, segment
from tests.rasters.makers import ramp, write_raster


def _replace(scene: Path) -> None:
    write_raster(scene.with_name("other.tif"), ramp(3, 75, 110, seed=2)).replace(scene)


def _truncate(scene: Path) -> None:
    os.truncate(scene, scene.stat().st_size // 2)


@pytest.mark.parametrize("change", [_replace, _truncate, Path.unlink])
@pytest.mark.parametrize("when", ["before the first row", "after the last row"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps files that are open as they are")
def test_a_scene_that_changes_ends_the_job(
    tmp_path: Path, tiny_model: Path, change: Callable[[Path], None], when: str
) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 75, 110))
    folder = tmp_path / "out"
    folder.mkdir()
    done: list[int] = []

    def on_rows(product: str, row: int, rows: object) -> None:
        if when == "after the last row" and not done:
            change(scene)
            done.append(row)

    def on_start(start: SegmentStart) -> None:
        if when == "before the first row":
            change(scene)

    with pytest.raises(InputError) as caught:
        segment(
            SegmentRequest(scene, folder / "classes.tif", str(tiny_model), device="cpu"),
            on_start=on_start,
            on_rows=on_rows,
        )
    assert caught.value.code == "E_SCENE_CHANGED"
    assert list(folder.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a small file system can be mounted by root on Linux only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_told_with_what_is_free(
    tmp_path: Path, tiny_model: Path, small_disk: Path
) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 75, 110))
    filler = small_disk / "filler"

    def fill(start: SegmentStart) -> None:
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(b"x" * 4096)

    with pytest.raises(ResourceError) as caught:
        segment(
            SegmentRequest(scene, small_disk / "classes.tif", str(tiny_model), device="cpu"), on_start=fill
        )
    assert caught.value.code == "E_DISK"
    assert re.search(r"\d MB are free", caught.value.message)
    assert list(small_disk.iterdir()) == [filler]


def test_all_files_together_must_find_room(tmp_path: Path, tiny_model: Path, small_disk: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 75, 110))
    with pytest.raises(ResourceError) as caught:
        segment(
            SegmentRequest(
                scene,
                small_disk / "classes.tif",
                str(tiny_model),
                device="cpu",
                confidence=small_disk / "confidence.tif",
                probabilities=small_disk / "probabilities.tif",
            )
        )
    assert caught.value.code == "E_DISK"
    assert re.search(r"needs up to [\d.]+ MB .* and [\d.]+ MB are free", caught.value.message)
    assert list(small_disk.iterdir()) == []
