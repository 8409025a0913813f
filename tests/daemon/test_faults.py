"""Things die in the middle of a job; nothing is lost, nothing comes twice, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from rest_backend.wire.messages import (
    Cancel,
    DaemonStatus,
    Done,
    Failed,
    Goodbye,
    JobStatus,
    Progress,
    Shutdown,
    Status,
    Submit,
    Submitted,
    Watch,
)
from tests.daemon.fake_method import class_rows
from tests.daemon.harness import Client, Daemon, assemble, client, fake_job, wait_until

SCENE = class_rows((0, 0, 64, 100), 0, 100, noise=False).tobytes()


def left_behind(folder: Path) -> list[str]:
    """Everything in the test's folder but the daemon's home and the fake's own marks."""
    return sorted(path.name for path in folder.iterdir() if path.name not in {"home", "gate", "out.attempts"})


def test_a_killed_worker_costs_no_row_and_repeats_none(
    served: Client, daemon: Daemon, tmp_path: Path
) -> None:
    undisturbed = served.submit(fake_job(tmp_path, "calm", stripe=7), key="calm")
    calm = list(served.rows(undisturbed, served.expect(Done).seq))
    gate = tmp_path / "gate"
    job = served.submit(fake_job(tmp_path, stripe=7, stripe2=13, gate=gate))
    blocks = list(served.rows(job, 7))  # rows 0 to 48; the next stripe waits at the gate
    (worker,) = daemon.workers()
    (temporary,) = tmp_path.glob("out.part*")
    worker.kill()
    again = served.expect(Progress, lambda event: event.job == job and event.stage == "queued")
    assert "lost" in again.note
    assert not temporary.exists()
    done = served.expect(Done)
    blocks += list(served.rows(job, done.seq, seq=7))
    assert [rows.seq for rows, _ in blocks] == list(range(done.seq))
    assert blocks[7][0].window == (0, 49, 64, 3)  # the second attempt's stripe 39 to 51, clipped
    assert assemble(blocks, 64, 100) == assemble(calm, 64, 100) == SCENE
    assert served.ask(Status(job=job), JobStatus).attempt == 1
    assert list(served.rows(job, done.seq)) == blocks
    assert left_behind(tmp_path) == ["calm.attempts", "calm.tif", "out.tif"]


def test_the_death_of_a_worker_is_told_at_once(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, gate=tmp_path / "never"))
    served.expect(Progress, lambda event: event.stage == "sweep")
    assert served.ask(Status(), DaemonStatus).devices[0].worker == "busy"
    (worker,) = daemon.workers()
    worker.kill()
    assert served.control.poll(10_000)  # 0.02 s on a machine with nothing else to do; the bar is 1 s
    assert served.expect(Progress, lambda event: event.stage == "queued").job == job
    assert served.expect(Done).job == job


def test_a_job_that_kills_three_workers_fails_and_the_next_one_runs(served: Client, tmp_path: Path) -> None:
    poison = served.submit(fake_job(tmp_path, fault="always"), key="poison")
    healthy = served.submit(fake_job(tmp_path, "healthy"), key="healthy")
    failed = served.expect(Failed)
    assert (failed.job, failed.code) == (poison, "E_WORKER_LOST")
    assert served.expect(Done).job == healthy
    assert (tmp_path / "out.attempts").stat().st_size == 3
    assert left_behind(tmp_path) == ["healthy.attempts", "healthy.tif"]


def test_a_worker_that_dies_by_itself_is_replaced(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, fault="once"))
    done = served.expect(Done)
    assert assemble(list(served.rows(job, done.seq)), 64, 100) == SCENE


def test_a_worker_that_never_starts_is_told(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", {"FAKE_START": "crash"})
    try:
        with client(daemon.start()) as served:
            served.submit(fake_job(tmp_path))
            failed = served.expect(Failed)
            assert failed.code == "E_WORKER_START"
            assert str(daemon.home / "log") in failed.message
    finally:
        daemon.end()


@pytest.mark.parametrize("fault", ["", "stubborn"])
def test_cancel_ends_a_running_job_and_leaves_nothing(
    served: Client, daemon: Daemon, tmp_path: Path, fault: str
) -> None:
    job = served.submit(fake_job(tmp_path, fault=fault, gate=tmp_path / "never"))
    assert len(list(served.rows(job, 5))) == 5
    assert len(list(tmp_path.glob("out.part*"))) == 1
    began = time.monotonic()
    assert served.ask(Cancel(job=job), JobStatus).state == "running"
    failed = served.expect(Failed)
    assert time.monotonic() - began < 10  # about 0 s, and 1 s by force, on a machine with nothing else to do
    assert (failed.job, failed.code) == (job, "E_CANCELLED")
    assert left_behind(tmp_path) == []
    assert list((daemon.home / "spool").iterdir()) == []
    status = served.ask(Status(job=job), JobStatus)
    assert (status.state, status.next_seq) == ("cancelled", 0)
    served.attach(job, 1)
    assert served.data_message()[0].code == "E_CANCELLED"
    served.submit(fake_job(tmp_path, "next"), key="next")
    assert served.expect(Done)


@pytest.mark.parametrize("fault", ["", "stubborn"])
def test_cancel_ends_a_job_that_is_loading(
    served: Client, daemon: Daemon, tmp_path: Path, fault: str
) -> None:
    job = served.submit(fake_job(tmp_path, fault=fault, gate=tmp_path / "never", gate_stage="loading"))
    wait_until((tmp_path / "out.attempts").exists)
    with client(daemon.connection) as other:  # whoever sees it in the list may end it
        assert other.ask(Cancel(job=job), JobStatus).state == "running"
        assert other.expect(Failed).code == "E_CANCELLED"
    assert served.expect(Failed).code == "E_CANCELLED"
    assert left_behind(tmp_path) == []
    served.submit(fake_job(tmp_path, "next"), key="next")
    assert served.expect(Done)


def test_cancel_of_a_waiting_job_leaves_the_running_one(served: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = served.submit(fake_job(tmp_path, gate=gate), key="a")
    waiting = served.submit(fake_job(tmp_path, "b"), key="b")
    served.ask(Cancel(job=waiting), JobStatus)
    assert served.expect(Failed).job == waiting
    gate.touch()
    assert served.expect(Done).job == running
    assert not (tmp_path / "b.attempts").exists()


def test_cancel_of_a_finished_job_changes_nothing(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path))
    done = served.expect(Done)
    assert served.ask(Cancel(job=job), JobStatus).state == "done"
    assert served.expect(Done) == done
    assert Path(done.output).exists()


def test_a_killed_daemon_takes_its_workers_with_it_and_its_job_completes_later(
    daemon: Daemon, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    connection = daemon.start()
    with client(connection) as served:
        job = served.submit(fake_job(tmp_path, stripe=7, stripe2=20, gate=gate))
        waiting = served.submit(fake_job(tmp_path, "second"), key="second")
        blocks = list(served.rows(job, 7))
        workers = daemon.workers()
        (temporary,) = tmp_path.glob("out.part*")
        daemon.kill()
    assert daemon.connection_path.exists()  # stale: its process is gone
    assert not psutil.pid_exists(connection.pid)
    wait_until(lambda: not any(worker.is_running() for worker in workers), 10)
    daemon.connection_path.unlink()
    renewed = daemon.start()
    assert renewed.boot != connection.boot
    assert renewed.server_public == connection.server_public
    with client(renewed) as served:
        served.ask(Watch(job=job), JobStatus)
        served.ask(Watch(job=waiting), JobStatus)
        done = {message.job: message for message in (served.expect(Done), served.expect(Done))}
        assert set(done) == {job, waiting}
        blocks += list(served.rows(job, done[job].seq, seq=7))
        assert assemble(blocks, 64, 100) == SCENE
        assert served.ask(Status(job=job), JobStatus).attempt == 1
    assert not temporary.exists()
    assert left_behind(tmp_path) == ["out.tif", "second.attempts", "second.tif"]


def test_a_job_outlives_any_number_of_daemons(daemon: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, gate=gate, gate_always=1, fault_row=0))
    for attempt in range(1, 5):  # each dies before the first row
        wait_until(lambda attempt=attempt: attempts(tmp_path) == attempt)
        daemon.kill()
        daemon.connection_path.unlink()
        daemon.start()
    gate.touch()
    with client(daemon.connection) as served:
        status = served.ask(Watch(job=job), JobStatus)
        assert (status.attempt, status.next_seq) == (4, 0)
        done = served.expect(Done)
        assert assemble(list(served.rows(job, done.seq)), 64, 100) == SCENE


def attempts(folder: Path) -> int:
    """How often the fake began."""
    marks = folder / "out.attempts"
    return marks.stat().st_size if marks.exists() else 0


def test_rows_the_disk_lost_are_computed_again(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, gate=tmp_path / "never"))
        assert len(list(served.rows(job, 5))) == 5
        daemon.kill()
    spool = daemon.home / "spool" / job / "classes.raw"
    spool.write_bytes(spool.read_bytes()[: 3 * 640 + 100])
    (daemon.home / "spool" / "orphan").mkdir()
    daemon.connection_path.unlink()
    with client(daemon.start()) as served:
        served.ask(Watch(job=job), JobStatus)
        done = served.expect(Done)
        assert assemble(list(served.rows(job, done.seq)), 64, 100) == SCENE
    assert not (daemon.home / "spool" / "orphan").exists()


def test_a_job_whose_scene_changed_while_no_daemon_ran_is_not_resumed(daemon: Daemon, tmp_path: Path) -> None:
    job = fake_job(tmp_path, gate=tmp_path / "never")
    scene = Path(job.scene)
    scene.write_text("before")
    with client(daemon.start()) as served:
        identifier = served.submit(job)
        assert len(list(served.rows(identifier, 5))) == 5
        daemon.kill()
    scene.write_text("after")
    daemon.connection_path.unlink()
    with client(daemon.start()) as served:
        served.ask(Watch(job=identifier), JobStatus)
        assert served.expect(Failed).code == "E_SCENE_CHANGED"
    scene.unlink()
    assert left_behind(tmp_path) == []


def test_a_cancel_survives_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, fault="stubborn", gate=tmp_path / "never"))
        assert len(list(served.rows(job, 5))) == 5
        served.ask(Cancel(job=job), JobStatus)
        daemon.kill()
    daemon.connection_path.unlink()
    with client(daemon.start()) as served:
        assert served.ask(Watch(job=job), JobStatus).state == "cancelled"
        assert served.expect(Failed).code == "E_CANCELLED"
    assert left_behind(tmp_path) == []


def test_shutdown_returns_the_running_job_to_the_queue(daemon: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with client(daemon.start()) as served, client(daemon.connection) as other:
        job = served.submit(fake_job(tmp_path, gate=gate))
        blocks = list(served.rows(job, 5))
        workers = daemon.workers()
        assert served.ask(Shutdown(), Goodbye).code == "E_SHUTDOWN"
        assert other.expect(Goodbye).code == "E_SHUTDOWN"
        began = time.monotonic()
        assert daemon.process.wait(20) == 0
        assert time.monotonic() - began < 15  # 3 s on a machine with nothing else to do
    assert not any(worker.is_running() for worker in workers)
    assert not daemon.connection_path.exists()
    assert left_behind(tmp_path) == []
    with client(daemon.start()) as served:
        again = served.ask(Submit(key="key", job=fake_job(tmp_path, gate=gate)), Submitted)
        assert again.job == job
        done = served.expect(Done)
        blocks += list(served.rows(job, done.seq, seq=5))
        assert assemble(blocks, 64, 100) == SCENE
        assert served.ask(Status(job=job), JobStatus).attempt == 0


def test_shutdown_ends_a_worker_that_does_not_listen(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, fault="stubborn", gate=tmp_path / "never"))
        assert len(list(served.rows(job, 5))) == 5
        (worker,) = daemon.workers()
        worker.suspend()  # not even its link thread runs
        served.ask(Shutdown(), Goodbye)
        assert daemon.process.wait(20) == 0
    assert not worker.is_running()
    assert left_behind(tmp_path) == []


def test_a_worker_whose_broker_hangs_up_ends_by_itself(daemon: Daemon, tmp_path: Path) -> None:
    """Without the help of the system's parent-death signal: the pipe's end alone is enough."""
    import subprocess
    import sys

    log = tmp_path / "worker.log"
    worker = subprocess.Popen(
        [sys.executable, "-m", "rest_backend.daemon.worker", "--parent", str(os.getpid()), "--log", str(log)],
        env=daemon._environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert b"Ready" in worker.stdout.read(4 + 17)
    worker.stdin.close()
    assert worker.wait(20) == 0
    worker.stdout.close()


def test_sigterm_ends_in_order(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        served.submit(fake_job(tmp_path, gate=tmp_path / "never"))
        served.expect(Progress, lambda event: event.stage == "sweep")
        daemon.process.send_signal(signal.SIGTERM)
        assert served.expect(Goodbye).code == "E_SHUTDOWN"
    assert daemon.process.wait(20) == 0
    assert left_behind(tmp_path) == []
    assert "ended in order" in daemon.log
