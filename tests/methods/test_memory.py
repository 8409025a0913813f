"""The memory limit is kept, job after job, and does not change the map."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch

from rest_backend.errors import ResourceError
from rest_backend.methods import context
from rest_backend.methods.memory import memory_errors
from rest_backend.methods.segment import SegmentRequest, segment
from tests.methods.conftest import make_model
from tests.rasters.makers import make_scene

# In a process of its own: what the suite has in memory must not count. The limit lies between the plan that
# keeps stored tensors in memory and the one that puts them into mapped files.
_CHILD = """
import json, sys
from pathlib import Path
import torch
from rest_backend.engine import SceneProgram
from rest_backend.engine import stored
from rest_backend.methods import memory, segment
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import find_model

scene, card, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
height, width = int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(1)
mapped = []
budgets = []
map_file, make_budget = stored._map_file, segment.make_budget
stored._map_file = lambda where, size: (mapped.append(size), map_file(where, size))[1]
segment.make_budget = lambda *asked: budgets.append(make_budget(*asked)) or budgets[-1]


def run(name, limit):
    mapped.clear()
    request = segment.SegmentRequest(Path(scene), folder / name, card, limit, "cpu")
    done = segment.segment(request)
    return {"peak": done.peak_rss_bytes, "limit": limit, "mapped": sum(mapped), "stripe": done.stripe}


runs = [run("free.tif", None)]
program = SceneProgram.capture(load_model(find_model(card), height, width), 3, height, width)
kept = program.plan(stripe=64)
spilled = kept.peak_bytes - kept.stored_bytes
del program
memory.release_unused()
limit = memory.resident_bytes() + budgets[0].beside + spilled + kept.stored_bytes // 2
runs += [run(f"limited{number}.tif", limit) for number in range(3)]
print(json.dumps({"runs": runs, "stored": kept.stored_bytes}))
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="the peak can be reset and memory given back on Linux only"
)
def test_the_limit_is_kept_by_mapped_files_job_after_job(tmp_path: Path) -> None:
    card = make_model(tmp_path, {"encoder": "tu-resnet10t", "decoder": "fpn"})
    scene = make_scene(tmp_path / "scene.tif", 1024, 3072)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(scene), str(card), str(tmp_path), "3072", "1024"],
        stdout=subprocess.PIPE,
        check=True,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    free, *limited = report["runs"]
    assert free["mapped"] == 0
    for run in limited:
        assert run["mapped"] > 0
        assert run["peak"] <= run["limit"]
        assert run["peak"] <= free["peak"] - report["stored"] // 2, report
    maps = []
    for name in ("free.tif", "limited0.tif", "limited2.tif"):
        with rasterio.open(tmp_path / name) as dataset:
            maps.append(dataset.read(1))
    assert (maps[0] == maps[1]).all()
    assert (maps[0] == maps[2]).all()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 12 bytes"
        ),
    ],
)
def test_exhausted_memory_is_one_sentence(error: Exception) -> None:
    with pytest.raises(ResourceError, match="not enough memory to count") as caught, memory_errors("count"):
        raise error
    assert (caught.value.code, caught.value.exit_code) == ("E_MEMORY", 4)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), memory_errors("count"):
        raise RuntimeError("something else")


def test_captures_of_earlier_jobs_are_given_up_before_a_job_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    scene = make_scene(tmp_path / "scene.tif", 96, 64)
    asked = SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu")
    segment(asked)
    assert context._kept
    with pytest.raises(ResourceError, match="memory limit"):
        segment(replace(asked, memory_bytes=1))
    assert not context._kept
