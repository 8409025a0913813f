"""Questions to the daemon, and wishes about jobs of its list: answered once, each in its time."""

from __future__ import annotations

import dataclasses
import stat
import threading

import pytest

from rest_qgis.client import ClientError, Engine, questions
from tests.client import peers
from tests.client.conftest import Recorder, ask, wait_until


class Answers:
    """Callbacks that remember."""

    def __init__(self) -> None:
        self.all: list[tuple[object, ClientError | None]] = []

    def __call__(self, answer: object, error: ClientError | None) -> None:
        self.all.append((answer, error))

    @property
    def codes(self) -> list[str]:
        return ["" if error is None else error.code for _, error in self.all]


class SlowPlanner(peers.Peer):
    """Plans nothing while ``held`` is set, as one that is busy with an earlier question."""

    def __init__(self, home):
        super().__init__(home)
        self.held = threading.Event()
        self.plans: list[tuple[bytes, dict]] = []

    def on_plan(self, peer, message):
        if self.held.is_set():
            self.plans.append((peer, message))
        else:
            super().on_plan(peer, message)


def test_models_and_status(engine, home):
    stopped = ask(engine.status)
    assert stopped[0] is None and stopped[1].code == "E_ENGINE_STOPPED"
    with peers.Peer(home) as peer:
        assert ask(engine.models) == ([{"id": "kitsap-buildings"}], None)
        status, error = ask(engine.status)
        assert error is None and status["pid"] == peer.pid


def test_a_plan_of_a_job_without_output(engine, home, request_of):
    request = dataclasses.replace(request_of, output="", bands=(3, 2, 1))
    with peers.Peer(home) as peer:
        plan, error = ask(lambda callback: engine.plan(request, callback))
    assert (plan, error) == ({"scene": request.scene, "fits": True}, None)
    assert peer.received[1]["job"]["bands"] == [3, 2, 1] and peer.received[1]["job"]["output"] == ""
    with pytest.raises(ClientError) as raised:
        engine.plan(dataclasses.replace(request, scene="scene.tif"), print)
    assert raised.value.code == "E_REQUEST"


def test_the_newest_plan_replaces_the_others_asked_or_not(engine, home, request_of):
    answers = Answers()
    with SlowPlanner(home) as peer:
        ask(engine.models)
        peer.held.set()
        engine.plan(request_of, answers)
        wait_until(lambda: len(peer.plans) == 1)
        engine.plan(request_of, answers)
        wait_until(lambda: len(peer.plans) == 2)
        assert answers.codes == ["E_REPLACED"]
        peer.held.clear()
        for asker, message in peer.plans:  # late answers, of which one is still wanted
            peer.on_plan(asker, message)
        wait_until(lambda: len(answers.all) == 2)
        ask(engine.models)
    assert answers.codes == ["E_REPLACED", ""]


def test_plans_that_wait_for_the_daemon_are_replaced_too(engine, home, request_of):
    older, newest = Answers(), Answers()
    with SlowPlanner(home) as peer:
        for _ in range(3):
            engine.plan(request_of, older)
        engine.plan(dataclasses.replace(request_of, scene="/newest.tif"), newest)
        wait_until(lambda: bool(newest.all))
    assert older.codes == ["E_REPLACED"] * 3
    assert newest.all[0][0]["scene"] == "/newest.tif"
    assert [message for message in peer.received if message["type"] == "plan"][-1]["job"][
        "scene"
    ] == "/newest.tif"


def test_a_plan_is_asked_again_after_the_daemon_came_back(engine, home, request_of):
    answers = Answers()
    with SlowPlanner(home) as peer:
        peer.held.set()
        engine.plan(request_of, answers)
        wait_until(lambda: bool(peer.plans))
        peer.held.clear()
        peer.restart()
        wait_until(lambda: bool(answers.all))
    assert answers.codes == [""]


def test_a_plan_that_never_comes(engine, home, request_of, monkeypatch):
    monkeypatch.setattr("rest_qgis.client.engine.PLAN_SECONDS", 0.2)
    answers = Answers()
    with SlowPlanner(home) as peer:
        peer.held.set()
        engine.plan(request_of, answers)
        wait_until(lambda: bool(answers.all))
        assert answers.codes == ["E_ENGINE_SILENT"]
        assert ask(engine.models)[1] is None


def test_a_plan_may_take_longer_than_other_answers():
    assert questions.PLAN_SECONDS > questions.ANSWER_SECONDS


def test_jobs_of_another_client_are_cancelled_and_deleted_by_id(engine, home, request_of):
    with peers.FallingSilentPeer(home) as peer, Engine(home) as other:
        listener = Recorder()
        job = other.segment(request_of, listener)
        wait_until(lambda: bool(job.id))
        errors: list[ClientError | None] = []
        engine.delete(job.id, errors.append)
        wait_until(lambda: len(errors) == 1)
        assert errors[0].code == "E_JOB_RUNNING"
        status, error = ask(lambda callback: engine.cancel(job.id, callback))
        assert error is None and (status["job"], status["state"]) == (job.id, "cancelled")
        engine.delete(job.id, errors.append)
        wait_until(lambda: len(errors) == 2)
        assert errors[1] is None and peer.jobs == {}
        engine.delete(job.id, errors.append)  # as after a link that was lost before the answer came
        wait_until(lambda: len(errors) == 3)
        assert errors[2] is None
        assert ask(lambda callback: engine.cancel("job-7", callback))[1].code == "E_UNKNOWN_JOB"


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../x", ".hidden", "a\n", "x" * 65, "ü"])
def test_what_names_no_job_is_refused_at_once(engine, key):
    calls = [
        engine.inbox,
        engine.resume,
        lambda key: engine.cancel(key, print),
        lambda key: engine.delete(key, print),
    ]
    for call in calls:
        with pytest.raises(ClientError) as raised:
            call(key)
        assert raised.value.code == "E_REQUEST"


def test_the_inbox_is_this_users_alone(tmp_path):
    home = tmp_path / "not" / "yet"
    with Engine(home) as engine:
        folder = engine.inbox("key-1")
        assert folder == home / "inbox" / "key-1" and engine.inbox("key-1") == folder
        for made in (folder, folder.parent, home):
            assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (home / "inbox" / "key-2").write_text("no folder")
        with pytest.raises(ClientError) as raised:
            engine.inbox("key-2")
    assert raised.value.code == "E_INBOX" and raised.value.message.endswith(".")
