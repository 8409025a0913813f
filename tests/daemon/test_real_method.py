"""The real operation with the bundled model in the real daemon: ended, killed, and undisturbed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import rasterio

from rest_backend.daemon.worker import METHOD_VARIABLE, PLANNER_VARIABLE
from rest_backend.wire.messages import (
    Cancel,
    Done,
    Error,
    Failed,
    JobStatus,
    Plan,
    Planned,
    Progress,
    SegmentJob,
    Status,
)
from tests.daemon.harness import REPOSITORY, Client, Daemon, assemble, client

SCENE = REPOSITORY / "resources" / "scenes" / "kitsap.tif"
WIDTH, HEIGHT = 768, 1024  # large enough that there is a middle
LEFT, TOP = 256, 1280


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with the operation users have."""
    made = Daemon(
        tmp_path / "home",
        {
            METHOD_VARIABLE: "rest_backend.methods.segment:segment",
            PLANNER_VARIABLE: "rest_backend.methods.plan:plan",
        },
    )
    yield made
    made.end()


def real_job(folder: Path, name: str) -> SegmentJob:
    return SegmentJob(
        scene=str(SCENE),
        model="kitsap-buildings",
        output=str(folder / f"{name}.tif"),
        window=(LEFT, TOP, WIDTH, HEIGHT),
        device="cpu",
        memory_bytes=1_500_000_000,
    )


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "home")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("stage", ["loading", "planning", "sweep"])
def test_cancel_in_the_middle_leaves_nothing(daemon: Daemon, tmp_path: Path, stage: str) -> None:
    with client(daemon.start()) as served:
        job = served.submit(real_job(tmp_path, "cancelled"))
        served.expect(Progress, lambda event: event.stage == stage)
        began = time.monotonic()
        assert served.ask(Cancel(job=job), JobStatus).state == "running"
        failed = served.expect(Failed)
        assert time.monotonic() - began < 10  # at most about 1.2 s on a machine with nothing else to do
        assert (failed.job, failed.code) == (job, "E_CANCELLED")
        assert files(tmp_path) == []
        assert list((daemon.home / "spool").iterdir()) == []
        assert served.ask(Status(job=job), JobStatus).state == "cancelled"


@pytest.mark.timeout(300)
def test_a_killed_worker_changes_no_pixel(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        calm = pixels(served, served.submit(real_job(tmp_path, "calm"), key="calm"))
        job = served.submit(real_job(tmp_path, "killed"), key="killed")
        first = list(served.rows(job, 1))
        (worker,) = daemon.workers()
        worker.kill()
        again = served.expect(Progress, lambda event: "lost" in event.note)
        assert again.rows_done < HEIGHT, "the worker was killed too late to prove anything"
        assert pixels(served, job) == calm
        assert next(served.rows(job, 1)) == first[0]
        assert served.ask(Status(job=job), JobStatus).attempt == 1
    assert len(set(calm)) == 2  # background and buildings
    calm_files = [name.replace("calm", "killed") for name in files(tmp_path) if name.startswith("calm")]
    assert "killed.tif" in calm_files
    assert [name for name in files(tmp_path) if not name.startswith("calm")] == calm_files
    with rasterio.open(tmp_path / "calm.tif") as one, rasterio.open(tmp_path / "killed.tif") as other:
        assert one.read(1).tobytes() == other.read(1).tobytes() == calm


@pytest.mark.timeout(300)
def test_a_plan_is_the_methods_own(daemon: Daemon, tmp_path: Path) -> None:
    job = msgspec.structs.replace(real_job(tmp_path, "planned"), window=(LEFT, TOP, 256, 256), output="")
    with client(daemon.start()) as served:
        plan = served.ask(Plan(job=job), Planned).plan
        assert (plan["scene"], plan["model"], plan["window"]) == (
            str(SCENE),
            job.model,
            [LEFT, TOP, 256, 256],
        )
        assert plan["fits"] and plan["problems"] == []
        assert [band["band"] for band in plan["bands"]] == [1, 2, 3]
        assert plan["memory_bytes"] <= plan["memory_limit_bytes"] == job.memory_bytes
        missing = msgspec.structs.replace(job, scene=str(tmp_path / "missing.tif"))
        assert served.ask(Plan(job=missing), Error).code == "E_SCENE_MISSING"
        assert files(tmp_path) == []


def pixels(served: Client, job: str) -> bytes:
    """Class map of a job once it is done, from its rows."""
    done = served.expect(Done, lambda event: event.job == job)
    blocks = list(served.rows(job, done.seq, credit=8))
    shifted = []
    for rows, values in blocks:
        column, row, width, height = rows.window
        window = (column - LEFT, row - TOP, width, height)
        shifted.append((msgspec.structs.replace(rows, window=window), values))
    return assemble(shifted, WIDTH, HEIGHT)
