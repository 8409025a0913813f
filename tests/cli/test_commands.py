"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio

from tests.cli.conftest import Run, read_json, write_area
from tests.rasters.makers import make_scene, ramp, write_raster

VERIFY_KEYS = {
    "encoder", "decoder", "dtype", "max_abs_diff", "logits_std", "max_rel_diff", "label_flips", "pixels",
    "time_ratio", "memory_ratio", "phases", "fallback_ops",
}  # fmt: skip
SEGMENT_KEYS = {
    "output", "seconds", "sweep_seconds", "rows_per_second", "first_rows_fraction", "peak_rss_bytes",
    "device", "context", "fallback_ops", "valid_pixels",
}  # fmt: skip


def test_segment_prints_one_line_of_json(tmp_path: Path, tiny_model: Path, run: Run) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 64, 80))
    output = tmp_path / "classes.tif"
    code, out, err = run(
        "segment",
        scene,
        "-o",
        output,
        "--model",
        tiny_model,
        "--memory",
        "3GB",
        "--device",
        "cpu",
        "--json",
    )
    summary = read_json(out)
    assert code == 0, err
    assert set(summary) >= SEGMENT_KEYS
    assert summary["output"] == str(output)
    assert summary["valid_pixels"] == 64 * 80
    assert 0 <= summary["first_rows_fraction"] <= 1
    assert output.is_file()
    assert (tmp_path / "classes.qml").is_file()
    assert (tmp_path / "classes.tif.aux.xml").is_file()


def test_without_json_stdout_stays_empty(tmp_path: Path, tiny_model: Path, run: Run) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(3, 64, 80))
    code, out, err = run("segment", scene, "-o", tmp_path / "c.tif", "--model", tiny_model)
    assert (code, out) == (0, "")
    assert "5,120 pixels" in err


def test_segment_takes_an_area_a_window_bands_and_products(
    tmp_path: Path, tiny_model: Path, run: Run
) -> None:
    scene = write_raster(tmp_path / "scene.tif", ramp(4, 96, 80))
    area = write_area(tmp_path / "area.geojson", scene, (8, 16, 40, 48))
    paths = {name: tmp_path / f"{name}.tif" for name in ("classes", "confidence", "probabilities")}
    code, out, err = run(
        "segment", scene, "-o", paths["classes"], "--model", tiny_model,
        "--aoi", area, "--window", "0,32,80,64", "--bands", "4,3,2", "--resolution", "0.2",
        "--device", "cpu", "--json",
        "--confidence", paths["confidence"], "--probabilities", paths["probabilities"],
    )  # fmt: skip
    assert code == 0, err
    summary = read_json(out)
    assert summary["window"] == [8, 32, 40, 32]
    assert summary["area_pixels"] == summary["valid_pixels"] == 40 * 32
    assert [band["band"] for band in summary["bands"]] == [4, 3, 2]
    for path, count in zip(paths.values(), (1, 1, 3), strict=True):
        with rasterio.open(path) as written:
            assert (written.width, written.height, written.count) == (40, 32, count)


def test_verify_prints_what_differs(run: Run) -> None:
    code, out, err = run(
        "verify", "--encoder", "tu-resnet18", "--decoder", "unet", "--height", 65, "--width", 50,
        "--stripe", 9, "--dtype", "float64", "--classes", 3, "--bands", 4, "--seed", 1, "--json",
    )  # fmt: skip
    summary = read_json(out)
    assert code == 0, err
    assert set(summary) >= VERIFY_KEYS
    assert summary["max_rel_diff"] <= 1e-9
    assert summary["label_flips"] == 0
    assert summary["fallback_ops"] == []
    assert summary["pixels"] == 65 * 50
    assert summary["max_rel_diff"] == pytest.approx(summary["max_abs_diff"] / summary["logits_std"])


def test_models_lists_the_bundled_one_first(run: Run) -> None:
    code, out, _ = run("models", "--json")
    listed = read_json(out)["models"]
    assert code == 0
    assert listed[0]["id"] == "kitsap-buildings"
    assert {"id", "bands", "classes", "score", "licence"} <= set(listed[0])


@pytest.mark.parametrize(
    ("arguments", "exit_code", "error"),
    [
        (["segment", "missing.tif", "-o", "c.tif", "--model", "tiny"], 2, "E_MODEL_UNKNOWN"),
        (
            ["segment", "missing.tif", "-o", "c.tif", "--model", "TINY", "--memory", "much"],
            2,
            "E_MEMORY_OPTION",
        ),
        (["segment", "missing.tif", "-o", "c.tif", "--model", "TINY"], 2, "E_SCENE_MISSING"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--memory", "1MB"], 4, "E_MEMORY"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--window", "1,2,3"], 2, "E_WINDOW_OPTION"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--bands", "red"], 2, "E_BANDS_OPTION"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--bands", "1,2,9"], 2, "E_SCENE_BANDS"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--bands", "1,2"], 2, "E_BANDS_COUNT"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--bands", "1,2,2"], 2, "E_BANDS_TWICE"),
        (["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--aoi", "no.gpkg"], 2, "E_AOI_MISSING"),
        (
            ["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--resolution", "1km"],
            2,
            "E_RESOLUTION_OPTION",
        ),
        (
            ["segment", "SCENE", "-o", "c.tif", "--model", "TINY", "--confidence", "c.tif"],
            2,
            "E_OUTPUT_TWICE",
        ),
        (["plan", "missing.tif", "--model", "TINY"], 2, "E_SCENE_MISSING"),
        (["plan", "SCENE", "--model", "TINY", "--window", "0,0,1"], 2, "E_WINDOW_OPTION"),
        (["verify", "--encoder", "tu-nothing", "--decoder", "fpn"], 2, "E_ENCODER_UNKNOWN"),
        (["verify", "--encoder", "tu-resnet18", "--decoder", "fpn", "--dtype", "int8"], 2, "E_DTYPE"),
        (
            ["verify", "--encoder", "tu-resnet18", "--decoder", "fpn", "--stripe", "0", "--height", "32"],
            2,
            "E_STRIPE",
        ),
        (["verify", "--encoder", "tu-resnet18", "--decoder", "fpn", "--height", "0"], 2, "E_SIZE"),
    ],
)
def test_errors_have_a_code_a_sentence_and_an_exit_status(
    arguments: list[str],
    exit_code: int,
    error: str,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_raster(tmp_path / "scene.tif", ramp(3, 40, 40))
    named = {"TINY": str(tiny_model), "SCENE": "scene.tif"}
    code, out, err = run(*(named.get(word, word) for word in arguments), "--json")
    assert code == exit_code
    assert read_json(out)["error"]["code"] == error
    assert err.startswith(f"error {error}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif"]


def test_unknown_options_end_with_2(run: Run) -> None:
    code, out, err = run("segment", "--nonsense")
    assert (code, out) == (2, "")
    assert "nonsense" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize(
    ("number", "options"),
    [(signal.SIGINT, []), (signal.SIGTERM, ["--aoi", "AREA", "--confidence", "OUT/confidence.tif"])],
)
def test_an_interrupted_run_ends_with_3_and_leaves_nothing(
    tmp_path: Path, tiny_model: Path, number: signal.Signals, options: list[str]
) -> None:
    scene = make_scene(tmp_path / "scene.tif", 256, 30_000)
    area = write_area(tmp_path / "area.geojson", scene, (10, 20, 200, 29_000))
    (tmp_path / "out").mkdir()
    named = {"AREA": str(area), "OUT/confidence.tif": str(tmp_path / "out" / "confidence.tif")}
    process = subprocess.Popen(
        [sys.executable, "-m", "rest_backend", "segment", str(scene), "-o", str(tmp_path / "out" / "c.tif"),
         "--model", str(tiny_model), "--device", "cpu", *(named.get(word, word) for word in options)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not list((tmp_path / "out").iterdir()):  # its temporary file shows that it runs
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert "E_CANCELLED" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_broken_card_is_told_and_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "broken.json").write_text("{")
    monkeypatch.setenv("REST_HOME", str(tmp_path))
    code, out, err = run("models", "--json")
    assert code == 0
    assert [model["id"] for model in read_json(out)["models"]] == ["kitsap-buildings"]
    assert "E_CARD_INVALID" in err


def test_a_comparison_larger_than_memory_is_refused(run: Run) -> None:
    size = ["--height", 65536, "--width", 65536]
    code, out, _ = run("verify", "--encoder", "tu-resnet18", "--decoder", "fpn", *size, "--json")
    assert code == 4
    assert read_json(out)["error"]["code"] == "E_MEMORY"
