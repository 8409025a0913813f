"""Clients and daemons killed at random points of a real segmentation: that nothing is lost, what it costs.

    python bench/kills.py [--jobs 5] [--seed 1]

Segments a part of the sample scene with the bundled model, confidence and probabilities, through the
plugin's client and a daemon of its own: once undisturbed, then again and again while 4 clients and 2
daemons are killed each time. A client is a process; whenever one was killed, a new one comes back with
the key that was noted before the job was submitted. Every client must be handed every row block from the
first on, without gap and the same as the clients before it; rows and rasters must be those of the
undisturbed run. Between two kills passes a random time of up to a quarter of what that run takes.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rasterio

from rest_qgis.client import JobRequest
from tests.daemon.harness import REPOSITORY
from tests.daemon.kills import Course, Outcome, end_daemon

SCENE = REPOSITORY / "resources" / "scenes" / "kitsap.tif"
WINDOW = (0, 0, 640, 2560)  # column, row, width, height in pixels
RASTERS = ("classes", "confidence", "probabilities")
KILLS = ("client", "client", "client", "daemon", "both")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            run(folder, "warm", [], chance, 0.0)  # the daemon starts, files are read for the first time
            began = time.monotonic()
            calm = run(folder, "calm", [], chance, 0.0)
            seconds = time.monotonic() - began
            print(f"undisturbed: {calm.blocks} row blocks, {seconds:.1f} s", flush=True)
            print("job  clients  daemons  killed after blocks        blocks  seconds  rows  rasters")
            for number in range(1, options.jobs + 1):
                kills = chance.sample(KILLS, len(KILLS))
                began = time.monotonic()
                outcome = run(folder, f"job{number}", kills, chance, seconds / 4)
                passed = time.monotonic() - began
                rows = "equal" if outcome.planes == calm.planes else "DIFFERENT"
                same = "equal" if rasters(folder, f"job{number}") == rasters(folder, "calm") else "DIFFERENT"
                points = " ".join(map(str, outcome.points))
                print(
                    f"{number:>3}  {outcome.client_kills:>7}  {outcome.daemon_kills:>7}  {points:<24}"
                    f"  {outcome.blocks:>7}  {passed:>7.1f}  {rows}  {same}",
                    flush=True,
                )
        finally:
            end_daemon(folder / "home")


def run(folder: Path, name: str, kills: list[str], chance: random.Random, seconds: float) -> Outcome:
    """One job with a record of its own."""
    records = folder / f"{name}.records"
    records.mkdir()
    scores = {product: str(folder / f"{name}.{product}.tif") for product in RASTERS[1:]}
    request = JobRequest(
        str(SCENE),
        "kitsap-buildings",
        str(folder / f"{name}.classes.tif"),
        window=WINDOW,
        device="cpu",
        memory_bytes=2_000_000_000,
        **scores,
    )
    command = Path(sys.executable).with_name("rest-backend")
    return Course(folder / "home", command, request, records, WINDOW).run(kills, chance, seconds)


def rasters(folder: Path, name: str) -> list[bytes]:
    """Pixels of all rasters of a job."""
    pixels = []
    for product in RASTERS:
        with rasterio.open(folder / f"{name}.{product}.tif") as file:
            pixels.append(file.read().tobytes())
    return pixels


if __name__ == "__main__":
    main()
