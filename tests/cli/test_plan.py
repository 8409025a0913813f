"""``rest-backend plan``: what people and programs are told, and how it exits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run, read_json, write_area
from tests.rasters.makers import ramp, write_raster

KEYS = {
    "scene", "model", "width", "height", "count", "dtype", "crs", "ground_resolution_m", "bands",
    "scene_bands", "window", "read_window", "area_pixels", "run_width", "run_height", "resolution_m",
    "context", "exact", "device", "device_name", "stripe", "phases", "context_rows", "fallback_ops",
    "memory_bytes", "memory_limit_bytes", "smallest_memory_bytes", "output_bytes", "disk_bytes",
    "free_bytes", "seconds", "seconds_basis", "fits", "problems", "notes",
}  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scene of five bands, alone in a folder that is the current one."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    names = ("blue", "green", "red", "nir", "")
    return write_raster(tmp_path / "scene.tif", ramp(5, 96, 80), names=names)


def test_a_plan_for_programs(scene: Path, tiny_model: Path, run: Run) -> None:
    area = write_area(scene.with_name("area.geojson"), scene, (8, 16, 40, 48))
    code, out, err = run(
        "plan", scene, "-o", "c.tif", "--model", tiny_model, "--aoi", area, "--confidence", "f.tif",
        "--device", "cpu", "--memory", "3GB", "--json",
    )  # fmt: skip
    plan = read_json(out)
    assert code == 0, err
    assert set(plan) == KEYS
    assert plan["fits"] and plan["problems"] == []
    assert plan["window"] == [8, 16, 40, 48] and plan["area_pixels"] == 40 * 48
    assert [(band["role"], band["band"], band["how"]) for band in plan["bands"]] == [
        ("red", 3, "name"),
        ("green", 2, "name"),
        ("blue", 1, "name"),
    ]
    assert plan["memory_limit_bytes"] == 3 * 10**9 >= max(plan["memory_bytes"], plan["smallest_memory_bytes"])
    assert list(Path.cwd().iterdir()) == []


def test_a_plan_for_people_is_short_and_on_stdout(scene: Path, tiny_model: Path, run: Run) -> None:
    code, out, err = run("plan", scene, "--model", tiny_model, "--device", "cpu")
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) <= 20 and max(map(len, lines)) < 200
    shown = "\n".join(lines)
    assert "80 x 96 pixels, 5 bands of uint8" in shown and "EPSG:26910" in shown
    assert "band 3 (red), by name" in shown and "SURE" not in shown
    assert "It can run." in lines[-1]
    assert list(Path.cwd().iterdir()) == []


def test_only_what_is_resampled_is_said_to_be(scene: Path, tiny_model: Path, run: Run) -> None:
    asked = ("plan", scene, "--model", tiny_model, "--device", "cpu", "--resolution")
    assert "resampled to" in run(*asked, "0.25")[1]
    code, out, _ = run(*asked, "4000")  # refused: the scene's own stands in
    assert code == 2 and "E_RESOLUTION" in out and "resampled to" not in out


def test_unsure_bands_are_marked(tmp_path: Path, tiny_model: Path, run: Run) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(13, 64, 64, "uint16"), photometric="minisblack")
    _, out, _ = run("plan", scene, "--model", tiny_model, "--device", "cpu")
    marked = [line for line in out.splitlines() if "by order" in line]
    assert len(marked) == 3 and all("NOT SURE" in line for line in marked)


def test_too_little_memory_exits_with_4_and_names_what_works(scene: Path, tiny_model: Path, run: Run) -> None:
    asked = ("plan", scene, "-o", "c.tif", "--model", tiny_model, "--device", "cpu")
    code, out, _ = run(*asked, "--memory", "1MB", "--json")
    plan = read_json(out)
    assert code == 4 and not plan["fits"]
    assert [problem["code"] for problem in plan["problems"]] == ["E_MEMORY"]
    smallest = plan["smallest_memory_bytes"]
    code, out, _ = run(*asked, "--memory", "1MB")
    assert code == 4 and "PROBLEM" in out and "It cannot run" in out.splitlines()[-1]
    # What is said to work does; some room, since the process itself has grown since.
    code, out, _ = run(*asked, "--memory", f"{smallest + 2 * 10**8}B", "--json")
    assert code == 0, out


def test_bands_that_cannot_be_told_exit_with_2(tmp_path: Path, tiny_model: Path, run: Run) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(5, 64, 64))
    code, out, _ = run("plan", scene, "--model", tiny_model, "--device", "cpu", "--json")
    plan = read_json(out)
    assert code == 2 and not plan["fits"]
    assert "E_BANDS_UNSURE" in [problem["code"] for problem in plan["problems"]]
    assert any(band["how"] == "missing" and band["band"] is None for band in plan["bands"])
    code, out, _ = run("plan", scene, "--model", tiny_model, "--device", "cpu")
    assert code == 2 and "NONE" in out and "--bands" in out
