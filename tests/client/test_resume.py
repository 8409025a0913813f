"""Coming back to jobs of an earlier session: all of their rows again, and whatever happened to them."""

from __future__ import annotations

import dataclasses
import time

import pytest

from rest_qgis.client import ClientError, Engine, JobRequest, jobs, new_key
from tests.client import peers
from tests.client.conftest import Recorder, check_rows, wait_until
from tests.client.test_link import FULL


@pytest.fixture
def asked(home, request_of):
    """Has a job, of which nobody of this session knows, in the journal of a peer; tells its key and id."""

    def ask_for(peer: peers.Peer, request: JobRequest = request_of) -> tuple[str, str]:
        key = new_key()
        with Engine(home) as earlier:
            job = earlier.segment(request, key=key)
            wait_until(lambda: bool(job.id))
        return key, job.id

    return ask_for


@pytest.mark.parametrize("by", ["key", "id"])
def test_a_job_is_resumed_by_its_key_or_its_id(engine, home, request_of, asked, by):
    request = dataclasses.replace(request_of, **FULL)
    seen: list[JobRequest] = []

    class Asking(Recorder):
        def submitted(self, job):
            seen.append(job.request)
            super().submitted(job)

    with peers.Peer(home) as peer:
        key, name = asked(peer, request)
        listener = Asking()
        job = engine.resume(key if by == "key" else name, listener)
        done = engine.wait(job, 20)
        assert [message["type"] for message in peer.received].count("submit") == 1
    check_rows(listener)
    assert seen == [dataclasses.replace(request, abandon_seconds=0)] == [job.request]
    assert (job.key, job.id, job.state) == (key, name, "done")
    assert done.output == request.output and done.seq == 12
    assert listener.events[0] == "submitted" and listener.events[-1] == "done"
    assert listener.events.count("submitted") == 1


def test_a_job_that_still_runs_goes_on(engine, home, asked):
    class Half(peers.Peer):
        """Half of the rows are there, the rest comes later."""

        def __init__(self, home):
            super().__init__(home, blocks=6)

        def events(self, peer, job):
            self.watcher = peer
            self.say(peer, None, type="progress", job=job.name, stage="sweep", rows_done=24, rows=48)

    with Half(home) as peer:
        key, _ = asked(peer)
        listener = Recorder()
        job = engine.resume(key, listener)
        wait_until(lambda: len(listener.blocks) == 6 and "progress" in listener.events)
        assert job.state == "running" and listener.notes[0].rows_done == 24
        peer.blocks = 12
        peer.finish(peer.watcher, peer.jobs[key])
        assert engine.wait(job, 20)
    check_rows(listener)


@pytest.mark.parametrize(("state", "code"), [("failed", "E_SCENE_MISSING"), ("cancelled", "E_CANCELLED")])
def test_a_job_that_ended_badly_says_what_it_was_and_why(engine, home, request_of, asked, state, code):
    with peers.FallingSilentPeer(home) as peer:
        key, _ = asked(peer)
        peer.jobs[key].state = state
        listener = Recorder()
        job = engine.resume(key, listener)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        assert peer.attaches[1:] == []  # only that of the earlier session
    assert raised.value.code == code and job.state == state
    assert listener.events == ["submitted", "failed"] and job.request == request_of


def test_a_job_nobody_knows(engine, home):
    with peers.Peer(home) as peer:
        listener = Recorder()
        job = engine.resume("no-such-job", listener)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        watches = [message for message in peer.received if message["type"] == "watch"]
    assert raised.value.code == "E_UNKNOWN_JOB" and listener.events == ["failed"]
    assert [(watch.get("key"), watch.get("job")) for watch in watches] == [
        ("no-such-job", None),
        (None, "no-such-job"),
    ]


def test_the_daemon_is_started_to_resume(engine, home):
    listener = Recorder()
    engine.resume(new_key(), listener)  # no command in this home: the wish is heard, and cannot be granted
    assert listener.ended.wait(20)
    assert listener.failure[0] == "E_ENGINE_MISSING"


def test_a_daemon_that_dies_while_rows_are_replayed(engine, home, asked):
    with peers.DyingPeer(home) as peer:
        peer.died = True  # not yet
        key, _ = asked(peer)
        peer.died = False
        listener = Recorder()
        job = engine.resume(key, listener)
        assert peer.stopped.wait(20)
        peer.start()
        assert engine.wait(job, 20)
        assert [message["type"] for message in peer.received].count("submit") == 1
    check_rows(listener)
    assert listener.events.count("submitted") == 1


def test_a_daemon_that_dies_before_it_answers(engine, home, asked):
    class Dying(peers.Peer):
        watches = 0

        def on_watch(self, peer, message):
            self.watches += 1
            if self.watches == 1:
                self._kill = True
            else:
                super().on_watch(peer, message)

    with Dying(home) as peer:
        key, _ = asked(peer)
        listener = Recorder()
        job = engine.resume(key, listener)
        assert peer.stopped.wait(20)
        peer.start()
        assert engine.wait(job, 20)
    check_rows(listener)


@pytest.mark.parametrize("by", ["key", "id"])
def test_a_job_that_is_followed_is_not_followed_twice(engine, home, request_of, by):
    with peers.FallingSilentPeer(home) as peer:
        key = new_key()
        first = engine.segment(request_of, key=key)
        wait_until(lambda: bool(first.id))
        listener = Recorder()
        engine.resume(key if by == "key" else first.id, listener)
        assert listener.ended.wait(20)
        assert listener.failure[0] == "E_FOLLOWED" and listener.events == ["failed"]
        first.cancel()  # which still leads to the job
        with pytest.raises(ClientError, match="cancelled"):
            engine.wait(first, 20)
        assert peer.jobs[key].state == "cancelled"


def test_resuming_by_key_and_by_id_at_once(engine, home, asked):
    with peers.FallingSilentPeer(home) as peer:
        key, name = asked(peer)
        followed, refused = Recorder(), Recorder()
        engine.resume(key, followed)
        engine.resume(name, refused)
        assert refused.ended.wait(20) and refused.failure[0] == "E_FOLLOWED"
        wait_until(lambda: len(followed.blocks) == 12)
    assert refused.events == ["failed"] and "failed" not in followed.events
    check_rows(followed)


def test_a_job_cancelled_before_the_daemon_told_what_it_is(engine, home, asked):
    with peers.FallingSilentPeer(home) as peer:
        key, _ = asked(peer)
        job = engine.resume(key)
        job.cancel()
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        assert raised.value.code == "E_CANCELLED"
        wait_until(lambda: peer.jobs[key].state == "cancelled")


def test_rows_of_a_long_job_are_replayed_under_credit(engine, home, asked):
    """However many rows wait in the daemon, only a few are on their way at a time."""

    class Slow(Recorder):
        outstanding: list[int] = []

        def rows(self, job, rows):
            time.sleep(0.005)
            self.outstanding.append(peer.sent_rows[-1] + 1 - len(self.blocks))  # numbers begin at 0 again
            super().rows(job, rows)

    with peers.Peer(home, blocks=200) as peer:
        key, _ = asked(peer)
        listener = Slow()
        assert engine.wait(engine.resume(key, listener), 60)
    check_rows(listener, 200)
    assert 1 < max(listener.outstanding) <= 8


def test_closing_says_that_a_resumed_job_goes_on(engine, home, monkeypatch):
    monkeypatch.setattr(jobs, "RESYNC_SECONDS", 60)
    with peers.SilentPeer(home):
        listener = Recorder()
        engine.resume("key-1", listener)
        engine.close()
        assert listener.ended.wait(20)
    assert listener.failure[0] == "E_CLIENT_CLOSED" and "goes on" in listener.failure[1]
