"""Plans by a process of their own: answered beside a running job, replaced, killed, given back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import psutil
import pytest
import zmq

from rest_backend.daemon.planner import Planner
from rest_backend.daemon.supervisor import Supervisor
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    DaemonStatus,
    Done,
    Error,
    JobStatus,
    Message,
    Plan,
    Planned,
    SegmentJob,
    Status,
)
from tests.daemon.harness import PATIENCE, REPOSITORY, Client, Daemon, client, fake_job, wait_until

# --- through the daemon --------------------------------------------------------------------


def test_a_plan_is_answered_while_a_job_runs(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = served.submit(fake_job(tmp_path, gate=gate))
    assert len(list(served.rows(job, 5))) == 5
    question = fake_job(tmp_path)
    question.bands, question.output = [4, 3, 2], ""
    plan = served.ask(Plan(job=question), Planned).plan
    assert (plan["scene"], plan["bands"]) == (question.scene, [4, 3, 2])
    assert plan["pid"] not in {os.getpid(), daemon.process.pid}
    assert len(daemon.workers()) == 2
    assert served.ask(Plan(job=question), Planned).plan["pid"] == plan["pid"]
    assert served.ask(Status(job=job), JobStatus).state == "running"
    gate.touch()
    assert served.expect(Done).job == job
    assert [device.id for device in served.ask(Status(), DaemonStatus).devices] == ["cpu"]


def test_no_planner_without_a_plan(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    served.submit(fake_job(tmp_path))
    served.expect(Done)
    assert len(daemon.workers()) == 1


def test_errors_of_the_plan_keep_their_code(served: Client, tmp_path: Path) -> None:
    refused = served.ask(Plan(job=fake_job(tmp_path, fault="input")), Error)
    assert (refused.code, refused.job) == ("E_SCENE_MISSING", "")
    assert served.ask(Plan(job=fake_job(tmp_path)), Planned)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"scene": ""}, "E_PATH"),
        ({"scene": "relative.tif"}, "E_PATH"),
        ({"aoi": "relative.gpkg"}, "E_PATH"),
        ({"confidence": "/a\nb.tif"}, "E_PATH"),
        ({"window": (0, 0, 5, 0)}, "E_WINDOW"),
        ({"device": "gpu"}, "E_DEVICE"),
    ],
)
def test_questions_that_make_no_sense_reach_no_planner(
    served: Client, daemon: Daemon, change: dict, code: str
) -> None:
    job = SegmentJob(**{"scene": "/scene.tif", "model": "m", "output": "", **change})
    assert served.ask(Plan(job=job), Error).code == code
    assert not (daemon.home / "log" / "planner.log").exists()


def test_a_plan_too_long_for_a_header_says_what_it_leaves_out(served: Client, tmp_path: Path) -> None:
    answer = served.ask(Plan(job=fake_job(tmp_path, many=1000)), Planned)
    assert answer.plan["left_out"] == ["scene_bands"]
    assert answer.plan["scene"]
    assert len(frames.encode(answer)[1]) <= HEADER_LIMIT
    whole = served.ask(Plan(job=fake_job(tmp_path, many=400)), Planned)
    assert len(whole.plan["scene_bands"]) == 400


def test_the_newest_question_of_a_client_replaces_its_earlier_ones(daemon: Daemon, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with client(daemon.start()) as one, client(daemon.connection) as other:
        running = Plan(request="running", job=fake_job(tmp_path, gate=tmp_path / "never", mark=mark))
        one.send(running)
        wait_until(mark.exists)
        other.send(Plan(request="theirs", job=fake_job(tmp_path)))
        one.send(Plan(request="second", job=fake_job(tmp_path)))
        one.send(Plan(request="third", job=fake_job(tmp_path)))
        told = [one.expect(Error), one.expect(Error)]
        assert [(error.request, error.code) for error in told] == [
            ("running", "E_REPLACED"),
            ("second", "E_REPLACED"),
        ]
        assert one.expect(Planned).request == "third"
        assert other.expect(Planned).request == "theirs"


def test_a_replaced_plan_that_heeds_no_cancel_keeps_nobody_waiting(daemon: Daemon, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with client(daemon.start()) as served:
        first = served.ask(Plan(job=fake_job(tmp_path)), Planned).plan["pid"]
        deaf = fake_job(tmp_path, gate=tmp_path / "never", mark=mark, fault="deaf")
        served.send(Plan(request="deaf", job=deaf))
        wait_until(mark.exists)
        served.send(Plan(request="newer", job=fake_job(tmp_path)))
        assert served.expect(Error).code == "E_REPLACED"
        answer = served.expect(Planned)
        assert answer.request == "newer"
        assert answer.plan["pid"] != first


def test_a_planner_that_dies_is_told_and_replaced(served: Client, daemon: Daemon, tmp_path: Path) -> None:
    refused = served.ask(Plan(job=fake_job(tmp_path, fault="kill")), Error)
    assert refused.code == "E_PLAN_FAILED"
    assert str(daemon.home / "log" / "planner.log") in refused.message
    assert served.ask(Plan(job=fake_job(tmp_path)), Planned)
    served.submit(fake_job(tmp_path))
    assert served.expect(Done)


def test_a_planner_that_does_not_start_is_told(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", {"FAKE_PLANNER_START": "crash"})
    try:
        with client(daemon.start()) as served:
            for _ in range(2):
                assert served.ask(Plan(job=fake_job(tmp_path)), Error).code == "E_PLAN_FAILED"
            served.submit(fake_job(tmp_path))
            assert served.expect(Done)
    finally:
        daemon.end()


def test_a_killed_daemon_takes_its_planner_along(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        pid = served.ask(Plan(job=fake_job(tmp_path)), Planned).plan["pid"]
        daemon.kill()
    wait_until(lambda: not psutil.pid_exists(pid))
    daemon.connection_path.unlink()


# --- with limits of the test's own ---------------------------------------------------------


class Desk:
    """A planner with a real process and a loop; no broker, no device's worker."""

    def __init__(self, folder: Path) -> None:
        self.context: zmq.Context = zmq.Context()
        self.supervisor = Supervisor(self.context, folder, folder)
        self.answers: list[tuple[bytes, Message]] = []
        self.planner = Planner(
            self.supervisor,
            lambda peer, message: self.answers.append((peer, message)),
            folder,
            plan_seconds=PATIENCE,
            idle_seconds=1.0,
        )

    def close(self) -> None:
        list(self.supervisor.stop())
        self.context.term()

    def ask(self, peer: bytes, folder: Path, **options: object) -> None:
        job = SegmentJob(scene="/s.tif", model=urlencode(options), output=str(folder / "o.tif"))
        self.planner.ask(peer, peer.decode(), job, time.monotonic())

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until something happened."""

        def turned() -> object:
            now = time.monotonic()
            for _, message in self.supervisor.receive(now):
                self.planner.handle(message, now)
            self.planner.tick(now)
            return condition()

        wait_until(turned)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("REST_PLANNER_METHOD", "tests.daemon.fake_plan:plan")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    made = Desk(tmp_path)
    yield made
    made.close()


def test_a_plan_that_takes_too_long_is_given_up(desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    desk.ask(b"slow", tmp_path, gate=tmp_path / "never", mark=mark)
    desk.ask(b"next", tmp_path)
    desk.until(mark.exists)
    first = desk.supervisor.planner
    desk.planner.tick(time.monotonic() + PATIENCE + 1)
    ((peer, error),) = desk.answers
    assert (peer, error.code, error.request) == (b"slow", "E_PLAN_FAILED", "slow")
    desk.until(lambda: len(desk.answers) == 2)
    assert isinstance(desk.answers[1][1], Planned)
    assert first.process.returncode is not None
    assert desk.supervisor.planner is not first


def test_the_process_ends_when_nobody_plans_and_comes_again(desk: Desk, tmp_path: Path) -> None:
    desk.ask(b"a", tmp_path)
    desk.until(lambda: desk.answers)
    first = desk.supervisor.planner.process
    desk.until(lambda: desk.supervisor.planner is None)
    assert first.returncode is not None
    desk.ask(b"a", tmp_path)
    desk.until(lambda: len(desk.answers) == 2)
    assert {type(message) for _, message in desk.answers} == {Planned}


def test_questions_of_a_client_that_left_are_forgotten(desk: Desk, tmp_path: Path) -> None:
    mark, waited = tmp_path / "mark", tmp_path / "waited"
    desk.ask(b"leaves", tmp_path, gate=tmp_path / "never", mark=mark)
    desk.ask(b"waits", tmp_path, mark=waited)
    desk.ask(b"stays", tmp_path)
    desk.until(mark.exists)
    desk.planner.leave(b"waits")
    desk.planner.leave(b"leaves")
    desk.until(lambda: desk.answers)
    assert [(peer, type(message)) for peer, message in desk.answers] == [(b"stays", Planned)]
    assert not waited.exists()
    desk.planner.clear()
    desk.until(lambda: desk.supervisor.planner is None)
