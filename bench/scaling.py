"""Memory and speed against the height of the scene, with the bundled model.

    python bench/scaling.py [--rounds 3] [--memory 2GB]

Runs ``rest-backend segment`` in a process of its own for a scene of 4096 x 4096 and
one of 4096 x 16384 pixels in turn, and prints peak resident memory, sweep time per
pixel and when the first rows came. Both ratios should be near 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.rasters.makers import make_scene

WIDTH, HEIGHTS = 4096, (4096, 16384)  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="2GB")
    options = parser.parse_args()
    runs: dict[int, list[dict[str, Any]]] = {height: [] for height in HEIGHTS}
    with tempfile.TemporaryDirectory() as folder:
        scenes = {height: make_scene(Path(folder) / f"{height}.tif", WIDTH, height) for height in HEIGHTS}
        for _ in range(options.rounds):
            for height, scene in scenes.items():
                runs[height].append(segment(scene, options.memory))
    print("scene            peak MB   sweep s   ns/pixel   first rows")
    for height, results in runs.items():
        peak, seconds, first = (
            statistics.median(run[key] for run in results)
            for key in ("peak_rss_bytes", "sweep_seconds", "first_rows_fraction")
        )
        per_pixel = seconds / (WIDTH * height) * 1e9
        print(f"{WIDTH} x {height:<6}  {peak / 1e6:8.0f}  {seconds:8.1f}  {per_pixel:9.0f}  {first:10.1%}")
    short, tall = (runs[height] for height in HEIGHTS)
    for key, pixels in (("peak_rss_bytes", False), ("sweep_seconds", True)):
        scale = HEIGHTS[0] / HEIGHTS[1] if pixels else 1.0
        ratios = [b[key] / a[key] * scale for a, b in zip(short, tall, strict=True)]
        name = "sweep seconds per pixel" if pixels else "peak memory"
        print(f"tall / square, {name}: median {statistics.median(ratios):.3f}")


def segment(scene: Path, memory: str) -> dict[str, Any]:
    """Summary of one run of the command line."""
    output = scene.with_suffix(".classes.tif")
    command = [sys.executable, "-m", "rest_backend", "segment", str(scene), "-o", str(output)]
    command += ["--model", "kitsap-buildings", "--memory", memory, "--device", "cpu", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
