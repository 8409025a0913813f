"""Old rows do not fill the disk, and workers that died do not disturb the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from rest_backend.daemon import link, retention
from rest_backend.daemon.home import Home
from rest_backend.daemon.jobs import TIDY_SECONDS, Jobs
from rest_backend.daemon.journal import Journal
from rest_backend.daemon.retention import KEEP_SECONDS
from rest_backend.daemon.supervisor import Gone, Supervisor
from rest_backend.wire.messages import Message, SegmentJob


class Desk:
    """Jobs with a real journal and spool; no worker is started."""

    def __init__(self, folder: Path, keep_bytes: int) -> None:
        self.home = Home(folder)
        self.home.prepare()
        self.context: zmq.Context = zmq.Context()
        self.journal = Journal(self.home.journal)
        self.supervisor = Supervisor(self.context, folder, self.home.log)
        self.watched: set[str] = set()
        self.told: list[tuple[str, Message]] = []
        self.jobs = Jobs(
            self.journal,
            self.supervisor,
            self.home,
            lambda job, message: self.told.append((job, message)),
            lambda _: None,
            self.watched.__contains__,
            keep_bytes,
        )

    def close(self) -> None:
        list(self.supervisor.stop())
        self.context.term()
        self.journal.close()

    def done(self, key: str, size: int) -> str:
        job = self.journal.submit(key, SegmentJob(scene="/s", model="m", output="/o")).id
        self.journal.start(job)
        self.rows(job).parent.mkdir()
        self.rows(job).write_bytes(b"x" * (size // 2))
        self.rows(job).with_name("confidence.raw").write_bytes(b"x" * (size - size // 2))
        self.journal.finish(job, {})
        return job

    def rows(self, job: str) -> Path:
        return self.home.spool / job / "classes.raw"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "home", keep_bytes=1000)
    yield made
    made.close()


def test_the_oldest_rows_go_when_there_are_too_many(desk: Desk) -> None:
    old, middle, new = (desk.done(key, 400) for key in ("old", "middle", "new"))
    desk.jobs.tick(0.0)
    assert [record.id for record in desk.journal.jobs()] == [middle, new]
    assert not desk.rows(old).parent.exists()
    assert desk.rows(middle).stat().st_size == desk.rows(new).stat().st_size == 200


def test_the_last_job_stays_whatever_its_size(desk: Desk) -> None:
    desk.done("old", 10)
    large = desk.done("large", 5000)
    failed = desk.journal.submit("failed", SegmentJob(scene="/s", model="m", output="/o")).id
    desk.journal.fail(failed, "E_X", "it has no rows")
    desk.jobs.tick(0.0)
    assert [record.id for record in desk.journal.jobs()] == [large, failed]
    assert desk.rows(large).exists()


def test_it_is_looked_at_every_hour_while_the_daemon_runs(desk: Desk) -> None:
    desk.jobs.tick(0.0)
    old, new = desk.done("old", 800), desk.done("new", 800)
    desk.jobs.tick(TIDY_SECONDS - 1)
    assert desk.rows(old).exists()
    desk.jobs.tick(TIDY_SECONDS)
    assert not desk.rows(old).exists()
    assert desk.rows(new).exists()


def test_jobs_are_forgotten_after_seven_days(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = desk.done("old", 10)
    running = desk.journal.submit("queued", SegmentJob(scene="/s", model="m", output="/o")).id
    desk.jobs.tick(0.0)
    assert desk.rows(old).exists()
    later = time.time() + KEEP_SECONDS + 1
    monkeypatch.setattr(retention.time, "time", lambda: later)
    desk.jobs.tick(TIDY_SECONDS)
    assert [record.id for record in desk.journal.jobs()] == [running]
    assert not desk.rows(old).parent.exists()


def test_a_message_a_dead_worker_never_took_does_not_stop_the_end(desk: Desk) -> None:
    desk.supervisor.tick(time.monotonic())
    (worker,) = desk.supervisor.live()
    worker.process.kill()
    worker.process.wait(10)
    worker.send(link.Stop(id="x" * 100))  # it stays in the pipe's buffer; closing it fails again
    assert any(isinstance(message, Gone) for _, message in desk.supervisor.stop())
    assert list(desk.supervisor.live()) == []
