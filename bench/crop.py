"""What a part of a scene costs and gives: classes inside against those of the whole-scene run.

    python bench/crop.py [--rounds 2]

The bundled model on the bundled scene, through ``rest_backend.methods.segment``: the
bounding box of a polygon and three extents, each with all the context its pixels can see.
Seconds are of the whole request: loading, statistics, capture, sweep, writing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from rest_backend.bundled import bundled_folder
from rest_backend.methods.segment import SegmentRequest, SegmentSummary, segment

WHOLE = (0, 0, 2560, 2560)
PARTS = {  # column, row, width, height in pixels
    "bounding box of a polygon": (611, 893, 477, 389),
    "a corner": (0, 0, 512, 512),
    "the lower border": (1024, 2048, 640, 512),
    "the middle": (1000, 1000, 300, 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    scene = bundled_folder("scenes") / "kitsap.tif"
    with tempfile.TemporaryDirectory() as folder:
        _run(scene, Path(folder) / "first.tif", PARTS["the middle"])  # loads libraries and the model
        classes, _ = _run(scene, Path(folder) / "whole.tif", WHOLE)
        seconds: dict[str, list[float]] = {}
        equal: dict[str, float] = {}
        for _ in range(options.rounds):
            for name, window in {"the whole scene": WHOLE, **PARTS}.items():
                inside, summary = _run(scene, Path(folder) / "part.tif", window)
                column, row, width, height = window
                same = inside == classes[row : row + height, column : column + width]
                equal[name] = min(equal.get(name, 1.0), float(same.mean()))
                seconds.setdefault(name, []).append(summary.seconds)
    whole = statistics.median(seconds["the whole scene"])
    print(f"| {'part':26} | pixels | equal | seconds | of the whole run |")
    print("|---|---|---|---|---|")
    for name, (_, _, width, height) in {"the whole scene": WHOLE, **PARTS}.items():
        median = statistics.median(seconds[name])
        print(f"| {name:26} | {width} x {height} | {equal[name]:.4%} | {median:.1f} | {median / whole:.0%} |")


def _run(
    scene: Path, output: Path, window: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], SegmentSummary]:
    """Classes of a window as they lie on disk, and the summary."""
    summary = segment(SegmentRequest(scene, output, "kitsap-buildings", device="cpu", window=window))
    with rasterio.open(output) as raster:
        return raster.read(1, window=Window(0, 0, window[2], window[3])), summary


if __name__ == "__main__":
    main()
