"""Clients and daemons killed at random points: every row arrives, and the raster is that of a calm run."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rest_qgis.client import JobRequest
from tests.daemon.fake_method import product_rows
from tests.daemon.harness import REPOSITORY, fake_job
from tests.daemon.kills import Course, end_daemon

WINDOW = (0, 0, 64, 120)
PRODUCTS = ("classes", "confidence", "probability-7")
KILLS = ["client", "daemon", "both", "client", "client"]  # four of clients, two of daemons


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    end_daemon(tmp_path / "home")


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """rest-backend with the operation of the tests; a client passes no Python's own variables on."""
    script = tmp_path / "rest-backend"
    script.write_text(
        f"#!/bin/sh\nPYTHONPATH={REPOSITORY} REST_WORKER_METHOD=tests.daemon.fake_method:segment"
        f' exec {sys.executable} -m rest_backend "$@"\n'
    )
    script.chmod(0o755)
    return script


@pytest.mark.skipif(sys.platform == "win32", reason="its command is a shell script")
def test_kills_cost_no_row_and_change_no_pixel(home: Path, command: Path, tmp_path: Path) -> None:
    job = fake_job(tmp_path, height=120, stripe=3, stripe2=4, pause=0.1, products=",".join(PRODUCTS))
    request = JobRequest(job.scene, job.model, job.output)
    records = tmp_path / "records"
    records.mkdir()
    chance = random.Random(2)
    outcome = Course(home, command, request, records, WINDOW).run(KILLS, chance, seconds=1.5)
    assert (outcome.client_kills, outcome.daemon_kills) == (4, 2)
    assert outcome.planes == {
        product: product_rows(product, WINDOW, 0, 120).tobytes() for product in PRODUCTS
    }
    assert Path(job.output).read_bytes() == outcome.planes["classes"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "home", "out.attempts", "out.tif", "records", "rest-backend",
    ]  # fmt: skip
