"""The plan against the run: predicted over measured peak memory and seconds, with the bundled model.

    python bench/plan.py

``rest-backend plan`` and ``rest-backend segment`` in processes of their own, for the sample
scene as it is, with confidence and probabilities, and two generated scenes. Ratios should be near 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.rasters.makers import make_scene

SAMPLE = Path(__file__).resolve().parents[1] / "resources" / "scenes" / "kitsap.tif"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scores = [
            "--confidence",
            str(folder / "confidence.tif"),
            "--probabilities",
            str(folder / "scores.tif"),
        ]
        cases: dict[str, tuple[Path, list[str]]] = {
            "sample, 2560 x 2560": (SAMPLE, []),
            "with confidence and probabilities": (SAMPLE, scores),
            "a window of 512 x 512": (SAMPLE, ["--window", "1024,1024,512,512"]),
            "6144 x 6144": (make_scene(folder / "square.tif", 6144, 6144), []),
            "16384 x 1024": (make_scene(folder / "wide.tif", 16384, 1024), []),
        }
        print("| case | predicted MB | peak MB | ratio | predicted s | seconds | ratio |")
        print("|---|---|---|---|---|---|---|")
        for case, (scene, options) in cases.items():
            words = [str(scene), "-o", str(folder / "classes.tif"), "--model", "kitsap-buildings", *options]
            plan, run = command("plan", words), command("segment", words)
            memory, peak = plan["memory_bytes"] / 1e6, run["peak_rss_bytes"] / 1e6
            foretold, seconds = plan["seconds"], run["seconds"]
            print(
                f"| {case} | {memory:.0f} | {peak:.0f} | {memory / peak:.2f} |"
                f" {foretold:.1f} | {seconds:.1f} | {foretold / seconds:.2f} |",
                flush=True,
            )


def command(name: str, words: list[str]) -> dict[str, Any]:
    """What a command of ``rest-backend`` prints as JSON."""
    line = [sys.executable, "-m", "rest_backend", name, *words, "--device", "cpu", "--json"]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
