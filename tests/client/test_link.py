"""The client against peers that are honest, and peers that misbehave in one way each."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time

import pytest

from rest_qgis.client import ClientError, Engine, JobRequest, jobs, new_key, session
from tests.client import honest_peer, peers
from tests.client.conftest import Recorder, States, ask, check_rows, wait_until

FULL = {
    "window": (1, 2, 3, 4),
    "device": "cpu",
    "memory_bytes": 10**9,
    "title": "Roofs, May",
    "bands": (4, 3, 2),
    "aoi": "/data/area.gpkg",
    "resolution_m": 0.5,
    "context": "nearby",
    "confidence": "/data/confidence.tif",
    "probabilities": "/data/probabilities.tif",
    "abandon_seconds": 60,
}


def run(engine: Engine, request: JobRequest) -> tuple[Recorder, object]:
    listener = Recorder()
    return listener, engine.segment(request, listener)


def test_a_job_from_submit_to_done(engine, home, request_of, states: States):
    with peers.Peer(home) as peer:
        listener, job = run(engine, request_of)
        done = engine.wait(job, 20)
        assert done.summary == {"seconds": 1.5} and done.output == request_of.output and done.seq == 12
    check_rows(listener)
    # The peer says done before the first row; the listener hears it after the last.
    assert listener.events == ["submitted", "progress", *["rows"] * 12, "done"]
    assert listener.threads == {"rest-client"}
    assert listener.notes[0].stage == "sweep" and listener.notes[0].rows == 48
    assert job.state == "done" and states.all[-1].version == "9.9"
    assert peer.received[1]["job"]["window"] is None and peer.received[1]["abandon_seconds"] == 0


def test_all_that_was_asked_is_sent_under_the_key_that_was_noted(engine, home, request_of):
    request = dataclasses.replace(request_of, **FULL)
    key = new_key()
    with peers.Peer(home) as peer:
        assert engine.wait(engine.segment(request, key=key), 20)
    submit = peer.received[1]
    assert submit["key"] == key and submit["abandon_seconds"] == 60
    sent = {**FULL, "window": [1, 2, 3, 4], "bands": [4, 3, 2]}
    assert {name: value for name, value in submit["job"].items() if name in sent} == {
        name: value for name, value in sent.items() if name != "abandon_seconds"
    }


def test_one_key_is_one_job(engine, home, request_of):
    with peers.FallingSilentPeer(home) as peer:
        key = new_key()
        first = engine.segment(request_of, key=key)
        listener = Recorder()
        second = engine.segment(request_of, listener, key=key)
        assert listener.ended.wait(20)
        assert listener.failure[0] == "E_FOLLOWED" and second.ended
        wait_until(lambda: first.state == "queued")
        assert list(peer.jobs) == [key]


def test_jobs_are_queued_until_the_daemon_is_there(engine, home, request_of):
    peer = peers.Peer(home)
    listener, job = run(engine, JobRequest(request_of.scene, "m", request_of.output, window=(1, 2, 3, 4)))
    # No daemon and no command: the wish fails. It is made again when there is one.
    with pytest.raises(ClientError) as raised:
        engine.wait(job, 20)
    assert raised.value.code == "E_ENGINE_MISSING" and listener.events == ["failed"]
    with peer:
        listeners = [run(engine, request_of)[0] for _ in range(3)]
        for listener in listeners:
            assert listener.ended.wait(20)
            check_rows(listener)


def test_manual_credit_sends_what_is_granted_and_no_more(engine, home, request_of):
    with peers.Peer(home, blocks=50) as peer:
        listener, job = run(engine, JobRequest(request_of.scene, "m", request_of.output, manual_credit=True))
        wait_until(lambda: peer.attaches and job.state == "running")
        time.sleep(0.2)
        assert peer.sent_rows == []
        job.grant(1)
        wait_until(lambda: len(listener.blocks) == 1)
        time.sleep(0.2)
        assert peer.sent_rows == [0] and not job.ended
        job.grant(49)  # more than may be in flight at once: the peer asserts that it never is
        assert engine.wait(job, 20) is not None
    check_rows(listener, 50)


def test_grant_is_refused_where_credit_is_automatic(engine, home, request_of):
    with peers.Peer(home):
        job = engine.segment(request_of, Recorder())
        with pytest.raises(ValueError, match="manual_credit"):
            job.grant(1)


def test_a_slow_listener_is_never_sent_more_than_its_credit(engine, home, request_of):
    class Slow(Recorder):
        outstanding: list[int] = []

        def rows(self, job, rows):
            time.sleep(0.03)
            self.outstanding.append(len(peer.sent_rows) - len(self.blocks))
            super().rows(job, rows)

    with peers.Peer(home, blocks=30) as peer:
        listener = Slow()
        assert engine.wait(engine.segment(request_of, listener), 20)
    check_rows(listener, 30)
    assert 1 < max(listener.outstanding) <= 8


def test_cancel(engine, home, request_of):
    with peers.FallingSilentPeer(home):
        listener, job = run(engine, request_of)
        wait_until(lambda: "submitted" in listener.events)
        job.cancel()
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_CANCELLED" and job.state == "cancelled"
    assert listener.events[-1] == "failed" and listener.failure[0] == "E_CANCELLED"


def test_a_listener_that_raises_stops_nothing(engine, home, request_of, caplog):
    class Broken(Recorder):
        def rows(self, job, rows):
            super().rows(job, rows)
            raise RuntimeError("the disk is full")

    with peers.Peer(home), caplog.at_level(logging.ERROR, "rest_qgis.client"):
        listener = Broken()
        assert engine.wait(engine.segment(request_of, listener), 20)
        check_rows(listener)
        assert ask(engine.models)[1] is None
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("kind", [peers.SkippingPeer, peers.DamagingPeer])
def test_a_row_that_comes_wrong_is_asked_for_again(engine, home, request_of, kind, monkeypatch):
    monkeypatch.setattr(jobs, "RESYNC_SECONDS", 0.2)
    with kind(home) as peer:
        listener, job = run(engine, request_of)
        assert engine.wait(job, 20)
    check_rows(listener)
    assert [attach["seq"] for attach in peer.attaches] == [0, 3]


@pytest.mark.parametrize(
    ("kind", "code"), [(peers.SkippingPeer, "E_SEQUENCE"), (peers.DamagingPeer, "E_CHECKSUM")]
)
def test_rows_that_stay_wrong_end_the_job(engine, home, request_of, kind, code, monkeypatch):
    monkeypatch.setattr(jobs, "RESYNC_SECONDS", 0.2)
    monkeypatch.setattr(kind, "times", 1000)
    with kind(home) as peer:
        listener, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == code and request_of.output in raised.value.message
    assert [block.seq for block in listener.blocks] == [0, 1, 2]
    assert len(peer.attaches) == jobs.STRIKES


def test_a_block_that_unpacks_to_more_than_its_window(engine, home, request_of):
    with peers.BombPeer(home):
        listener, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_SIZE" and listener.blocks == []


def test_a_payload_over_the_limit_breaks_the_link_and_not_the_client(engine, home, request_of):
    with peers.HugePayloadPeer(home):
        listener, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_ENGINE_LINK" and listener.blocks == []
    with peers.Peer(home):
        listener, job = run(engine, request_of)
        assert engine.wait(job, 20)
    check_rows(listener)


@pytest.mark.parametrize("kind", [peers.OtherProtocolPeer, peers.LyingProtocolPeer])
def test_a_daemon_of_another_protocol(engine, home, request_of, states, kind):
    with kind(home):
        _, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        assert raised.value.code == "E_ENGINE_VERSION"
        for told in ("9.9", str(os.getpid()), "update"):
            assert told in raised.value.message
        assert states.wait("failed").code == "E_ENGINE_VERSION"


def test_a_silent_daemon(engine, impatient, home, request_of, states, monkeypatch):
    monkeypatch.setattr(session, "TIMING", dataclasses.replace(session.TIMING, contact_with_jobs=0.6))
    with peers.SilentPeer(home) as peer:
        _, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        assert raised.value.code == "E_ENGINE_SILENT" and str(peer.pid) in raised.value.message
        assert states.wait("failed").code == "E_ENGINE_SILENT"
        assert ask(engine.models)[1].code == "E_ENGINE_SILENT"


def test_a_daemon_that_falls_silent_is_called_unresponsive_and_may_come_back(
    engine, impatient, home, request_of, states
):
    with peers.FallingSilentPeer(home) as peer:
        listener, job = run(engine, request_of)
        wait_until(lambda: "submitted" in listener.events)
        peer.silent.set()
        try:
            states.wait("unresponsive")
            assert not job.ended
        finally:
            peer.silent.clear()
        ask(engine.models)
        states.wait("ready")


def test_a_daemon_that_dies_in_mid_job_and_comes_back(engine, home, request_of, states):
    with peers.DyingPeer(home) as peer:
        listener, job = run(engine, request_of)
        assert peer.stopped.wait(20)
        assert not job.ended
        peer.start()
        assert engine.wait(job, 20)
        assert peer.boots == 2
    check_rows(listener)
    assert [attach["seq"] for attach in peer.attaches] == [0, 5]
    assert [message["type"] for message in peer.received].count("submit") == 1
    assert listener.events.count("submitted") == 1


def test_a_job_the_daemon_does_not_know_any_more_is_not_done(engine, home, request_of):
    with peers.DyingPeer(home) as peer:
        _, job = run(engine, request_of)
        assert peer.stopped.wait(20)
        peer.jobs.clear()
        peer.start()
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_UNKNOWN_JOB"


def test_a_submit_whose_answer_was_lost_is_sent_again_with_its_key(engine, home, request_of):
    class Forgetful(peers.Peer):
        def on_submit(self, peer, message):
            if self.boots == 1:
                self.jobs[message["key"]] = honest_peer.Job("job-0", message["job"])
                self.jobs[message["key"]].state = "done"
                self._kill = True
            else:
                self.say(peer, message, type="submitted", job="job-0", key=message["key"], state="done")

        def events(self, peer, job):
            pass

    with Forgetful(home) as peer:
        listener, job = run(engine, request_of)
        assert peer.stopped.wait(20)
        peer.start()
        assert engine.wait(job, 20)
    check_rows(listener)
    assert len(peer.jobs) == 1 and listener.events.count("submitted") == 1


def test_unknown_message_types_are_ignored(engine, home, request_of):
    with peers.ChattyPeer(home):
        listener, job = run(engine, request_of)
        assert engine.wait(job, 20)
    check_rows(listener)


def test_a_little_nonsense_is_dropped(engine, home, request_of):
    with peers.BabblingPeer(home):
        listener, job = run(engine, request_of)
        assert engine.wait(job, 20)
    check_rows(listener)


def test_much_nonsense_ends_the_link(engine, home, request_of, states, monkeypatch):
    monkeypatch.setattr(peers.BabblingPeer, "count", 30)
    with peers.BabblingPeer(home):
        _, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_ENGINE_PROTOCOL"


def test_a_daemon_that_always_hangs_up(engine, home, request_of):
    with peers.HangingUpPeer(home) as peer:
        _, job = run(engine, request_of)
        while not job.ended and peer.boots < 30:
            if peer.stopped.wait(0.05):
                peer.start()
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_ENGINE_LINK" and peer.boots < 30


def test_a_daemon_that_refuses_its_own_keys(engine, home, request_of):
    with peers.KeylessPeer(home):
        _, job = run(engine, request_of)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert raised.value.code == "E_ENGINE_KEYS"


def test_close_never_waits_for_a_job(engine, home, request_of):
    with peers.FallingSilentPeer(home) as peer:
        listener, job = run(engine, request_of)
        wait_until(lambda: "submitted" in listener.events)
        before = time.monotonic()
        engine.close()
        assert time.monotonic() - before < 10.0  # the daemon would not answer for ever
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
        assert raised.value.code == "E_CLIENT_CLOSED"
        assert listener.events[-1] == "failed" and listener.failure == ("E_CLIENT_CLOSED", str(raised.value))
        assert "goes on" in raised.value.message and request_of.output in raised.value.message
        assert next(iter(peer.jobs.values())).state == "running"
        job.cancel()
        with pytest.raises(ClientError):
            engine.segment(request_of)
        engine.close()


def test_close_waits_a_second_for_a_listener_that_hangs(engine, home, request_of):
    held = threading.Event()

    class Hanging(Recorder):
        def rows(self, job, rows):
            held.wait(60)

    with peers.Peer(home):
        listener = Hanging()
        engine.segment(request_of, listener)
        wait_until(lambda: "submitted" in listener.events)
        before = time.monotonic()
        engine.close()
        assert time.monotonic() - before < 10.0  # it would hang for 60
        held.set()


def test_close_tells_jobs_and_questions_that_never_got_through(engine, home, request_of):
    with peers.SilentPeer(home):
        listener, job = run(engine, request_of)
        errors: list[ClientError | None] = []
        engine.models(lambda _, error: errors.append(error))
        engine.shutdown(errors.append)
        engine.close()
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 20)
    assert listener.failure[0] == "E_CLIENT_CLOSED" and "had not taken" in raised.value.message
    wait_until(lambda: len(errors) == 2)
    assert [error.code for error in errors] == ["E_CLIENT_CLOSED"] * 2


def test_a_client_thread_that_dies_tells_everyone(engine, home, request_of, states, monkeypatch):
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    with peers.FallingSilentPeer(home):
        listener, job = run(engine, request_of)
        wait_until(lambda: "submitted" in listener.events)

        def mistake() -> None:
            raise ZeroDivisionError("a mistake of ours")

        engine._session.post(mistake)
        assert listener.ended.wait(20)
        with pytest.raises(ClientError):
            engine.wait(job, 20)
        assert listener.failure[0] == "E_CLIENT_CLOSED" and "mistake" in listener.failure[1]
        assert states.wait("failed").code == "E_CLIENT_CLOSED"
        with pytest.raises(ClientError, match="restart QGIS"):
            engine.segment(request_of)
    wait_until(lambda: bool(raised))


def test_waiting_on_the_client_thread_is_refused(engine, home, request_of):
    caught: list[Exception] = []

    class Waiting(Recorder):
        def submitted(self, job):
            try:
                engine.wait(job)
            except RuntimeError as error:
                caught.append(error)
            super().submitted(job)

    with peers.Peer(home):
        assert engine.wait(engine.segment(request_of, Waiting()), 20)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"scene": "scene.tif"},
        {"output": "classes.tif"},
        {"model": "m" * 5000},
        {"window": (0, 0, -1, 5)},
        {"memory_bytes": -1},
        {"scene": "/\udcff.tif"},
        {"aoi": "area.gpkg"},
        {"confidence": "confidence.tif"},
        {"probabilities": "probabilities.tif"},
        {"bands": (0, 1, 2)},
        {"resolution_m": -0.5},
        {"context": "far"},
        {"abandon_seconds": -1},
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_at_once(engine, request_of, change):
    fields = {**vars(request_of), **change}
    with pytest.raises(ClientError) as raised:
        engine.segment(JobRequest(**fields))
    assert raised.value.code == "E_REQUEST"
    assert raised.value.message.endswith(".")
