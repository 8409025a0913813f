"""Preview here: seconds from the request to the last row, through the client and a daemon of its own.

    python bench/preview.py [--times 7]

512 x 512 pixels of the sample scene at different places, with the bundled model, as the dock
asks for it. The first preview loads libraries, model and statistics; asked of the others: 3 s.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rest_qgis.client import Engine, JobRequest

SCENE = Path(__file__).resolve().parents[1] / "resources" / "scenes" / "kitsap.tif"
SIDE = 512  # pixels
PLACES = ((1024, 1024), (900, 1100), (640, 1300), (1400, 700), (0, 0), (2048, 1500), (1024, 2048))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=len(PLACES))
    options = parser.parse_args()
    command = Path(sys.executable).with_name("rest-backend")
    with tempfile.TemporaryDirectory() as name:
        folder, ended = Path(name), threading.Event()
        with Engine(home=folder / "home", command=command) as engine:
            first = preview(engine, folder, PLACES[0])
            others = [preview(engine, folder, PLACES[n % len(PLACES)]) for n in range(options.times)]
            engine.shutdown(lambda error: ended.set())
            ended.wait(20)
    print(f"first {first:.1f} s; then median {statistics.median(others):.2f} s of {len(others)}:")
    print(", ".join(f"{seconds:.2f}" for seconds in others))


def preview(engine: Engine, folder: Path, corner: tuple[int, int]) -> float:
    """Seconds of one preview."""
    began = time.monotonic()
    request = JobRequest(
        scene=str(SCENE),
        model="kitsap-buildings",
        output=str(folder / "preview.tif"),
        window=(*corner, SIDE, SIDE),
        context="nearby",
    )
    engine.wait(engine.segment(request), 120)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
