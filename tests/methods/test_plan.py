"""Plan: what is told before the run is what the run does; what does not fit is told with what would."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from affine import Affine

from rest_backend.errors import CancelledError, InputError, ResourceError
from rest_backend.methods.plan import PlanRequest, PlanSummary, plan
from rest_backend.methods.segment import SegmentRequest, segment
from tests.methods.conftest import make_model
from tests.methods.test_context import write_area
from tests.rasters.makers import NORTH_UP, ramp, write_raster

SIZE = (90, 120)  # rows, columns


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", ramp(3, *SIZE))


def _plan(scene: Path, card: Path, **asked: Any) -> PlanSummary:
    output = asked.pop("output", scene.with_name("classes.tif"))
    return plan(PlanRequest(SegmentRequest(scene, output, str(card), device="cpu", **asked)))


def _codes(planned: PlanSummary) -> list[str]:
    assert planned.fits == (not planned.problems)
    return [problem["code"] for problem in planned.problems]


def test_the_run_does_what_was_planned_and_planning_writes_nothing(
    tmp_path: Path, scene: Path, tiny_model: Path
) -> None:
    area = write_area(tmp_path / "area.geojson", NORTH_UP, 26910, [[(10, 5), (70, 8), (40, 60)]])
    before = sorted(tmp_path.rglob("*"))
    asked: dict[str, Any] = {"aoi": area, "confidence": tmp_path / "confidence.tif"}
    planned = _plan(scene, tiny_model, **asked)
    assert sorted(tmp_path.rglob("*")) == before
    assert _codes(planned) == []
    done = segment(SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu", **asked))
    same = ("window", "read_window", "run_width", "run_height", "area_pixels", "context", "exact", "stripe")
    for name in (*same, "phases", "context_rows", "fallback_ops", "bands", "model"):
        assert getattr(planned, name) == getattr(done, name), name
    assert (planned.width, planned.height, planned.count) == (SIZE[1], SIZE[0], 3)
    assert (planned.dtype, planned.crs) == ("uint8", "EPSG:26910")
    assert planned.ground_resolution_m == pytest.approx(0.1, rel=1e-2)
    assert [band["number"] for band in planned.scene_bands] == [1, 2, 3]
    assert planned.seconds is not None and planned.seconds > 0
    written = sum(path.stat().st_size for path in (tmp_path / "classes.tif", asked["confidence"]))
    assert written <= planned.output_bytes <= planned.disk_bytes
    assert planned.free_bytes is not None
    assert planned.memory_bytes <= planned.memory_limit_bytes
    assert planned.smallest_memory_bytes <= planned.memory_bytes + 3e7  # in whole 10 MB, with some room
    assert json.loads(json.dumps(asdict(planned), allow_nan=False))["window"] == list(planned.window)


def test_the_smallest_memory_limit_works_and_less_does_not(
    tmp_path: Path, scene: Path, tiny_model: Path
) -> None:
    planned = _plan(scene, tiny_model, memory_bytes=10**6)
    assert _codes(planned) == ["E_MEMORY"]
    named = re.search(r"smallest that works is (\d+) MB", planned.problems[0]["message"])
    assert named is not None
    assert int(named[1]) * 10**6 == planned.smallest_memory_bytes
    spare = 60_000_000  # what the suite's process may have gained or given back since
    request = SegmentRequest(scene, tmp_path / "classes.tif", str(tiny_model), device="cpu")
    enough = SegmentRequest(**(request.__dict__ | {"memory_bytes": planned.smallest_memory_bytes + spare}))
    assert segment(enough).valid_pixels == SIZE[0] * SIZE[1]
    little = SegmentRequest(**(request.__dict__ | {"memory_bytes": planned.smallest_memory_bytes - spare}))
    with pytest.raises(ResourceError, match="smallest that works is") as caught:
        segment(little)
    assert caught.value.code == "E_MEMORY"


@pytest.mark.parametrize(("metres", "advice"), [(0.1, "Set a resolution of 1 m"), (100.0, "too far apart")])
def test_advice_about_the_resolution_can_be_followed(
    tmp_path: Path, tiny_model: Path, metres: float, advice: str
) -> None:
    transform = Affine(metres, 0.0, 500_000.0, 0.0, -metres, 5_700_000.0)
    scene = write_raster(tmp_path / "scene.tif", ramp(3, *SIZE), transform=transform)
    assert any(advice in note for note in _plan(scene, tiny_model).notes)


def test_more_bands_are_not_asked_for_than_there_are(tmp_path: Path, tiny_model: Path) -> None:
    [problem] = _plan(write_raster(tmp_path / "scene.tif", ramp(1, *SIZE)), tiny_model).problems
    assert problem["code"] == "E_BANDS_UNSURE"
    assert problem["message"].count("The scene has 1 band of data") == 1
    assert "--bands" not in problem["message"]


def test_bands_that_are_not_sure_are_told_by_row(tmp_path: Path, tiny_model: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(9, *SIZE), names=("x", "red", "y"))
    planned = _plan(scene, tiny_model)
    assert _codes(planned) == ["E_BANDS_UNSURE"]
    assert "green, blue" in planned.problems[0]["message"]
    assert [(band["model"], band["band"], band["sure"]) for band in planned.bands] == [
        ("red", 2, True),
        ("green", None, False),
        ("blue", None, False),
    ]
    assert len(planned.scene_bands) == 9
    assert planned.memory_bytes > 0


def _asked(tmp_path: Path, name: str) -> dict[str, Any]:
    nowhere = [[(-90.0, -90.0), (-80.0, -90.0), (-80.0, -80.0)]]
    tmp_path.joinpath("text.tif").write_text("neither polygons nor pixels")
    return {
        "band twice": {"bands": (1, 2, 2)},
        "too few bands": {"bands": (1,)},
        "no such band": {"bands": (1, 2, 5)},
        "area elsewhere": {"aoi": write_area(tmp_path / "area.geojson", NORTH_UP, 26910, nowhere)},
        "no area": {"aoi": tmp_path / "missing.gpkg"},
        "area that is none": {"aoi": tmp_path / "text.tif"},
        "area without polygons": {"aoi": write_area(tmp_path / "empty.geojson", NORTH_UP, 26910, [])},
        "window outside": {"window": (100, 0, 50, 50)},
        "resolution": {"resolution_m": -1.0},
        "folder": {"output": tmp_path / "no" / "classes.tif"},
        "names": {"confidence": tmp_path / "classes.tif"},
    }[name]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("band twice", "E_BANDS_TWICE"),
        ("too few bands", "E_BANDS_COUNT"),
        ("no such band", "E_SCENE_BANDS"),
        ("area elsewhere", "E_AOI_OUTSIDE"),
        ("no area", "E_AOI_MISSING"),
        ("area that is none", "E_AOI_UNREADABLE"),
        ("area without polygons", "E_AOI_EMPTY"),
        ("window outside", "E_WINDOW"),
        ("resolution", "E_RESOLUTION"),
        ("folder", "E_OUTPUT_FOLDER"),
        ("names", "E_OUTPUT_TWICE"),
    ],
)
def test_what_stands_in_the_way_is_a_problem_and_refused_by_the_run(
    tmp_path: Path, scene: Path, tiny_model: Path, name: str, code: str
) -> None:
    asked = _asked(tmp_path, name)
    planned = _plan(scene, tiny_model, **asked)
    assert _codes(planned) == [code]
    assert (planned.width, planned.height) == (SIZE[1], SIZE[0])
    assert planned.stripe > 0
    with pytest.raises(InputError) as caught:
        segment(
            SegmentRequest(
                **(
                    {"scene": scene, "output": scene.with_name("classes.tif"), "model": str(tiny_model)}
                    | asked
                ),
                device="cpu",
            )
        )
    assert (caught.value.code, caught.value.message) == (code, planned.problems[0]["message"])


def test_a_disk_without_room_is_told_with_both_numbers(
    scene: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(scene.parent))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9 - 500_000, 500_000))
    planned = _plan(scene, tiny_model)
    assert _codes(planned) == ["E_DISK"]
    assert planned.free_bytes == 500_000 < planned.disk_bytes
    assert re.search(r"needs up to [\d.]+ MB .* 0\.5 MB are free", planned.problems[0]["message"])


def test_an_inexact_preview_is_told(tmp_path: Path) -> None:
    card = make_model(tmp_path, {"encoder": "tu-resnet10t", "decoder": "fpn"})  # with GroupNorm
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 420, 700))
    near = _plan(scene, card, window=(333, 111, 47, 58), context="nearby")
    assert (near.exact, near.context, near.read_window) == (False, "nearby", (64, 0, 608, 420))
    assert any("surroundings" in note for note in near.notes)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"scene": Path("missing.tif")}, "E_SCENE_MISSING"), ({"model": "none"}, "E_MODEL_UNKNOWN")],
)
def test_without_scene_or_model_there_is_no_plan(
    scene: Path, tiny_model: Path, change: dict[str, Any], code: str
) -> None:
    asked = {"scene": scene, "output": scene.with_name("classes.tif"), "model": str(tiny_model)} | change
    with pytest.raises(InputError) as caught:
        plan(PlanRequest(SegmentRequest(**asked)))
    assert caught.value.code == code


def test_a_plan_can_be_cancelled(scene: Path, tiny_model: Path) -> None:
    request = SegmentRequest(scene, scene.with_name("classes.tif"), str(tiny_model))
    with pytest.raises(CancelledError):
        plan(PlanRequest(request), cancelled=lambda: True)
