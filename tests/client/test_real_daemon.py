"""The client and the real daemon, worker and bundled model: the whole chain on generated scenes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rest_backend", reason="the backend is not in QGIS's Python")

import rasterio

from rest_qgis.client import ClientError, Engine, JobRequest
from rest_qgis.client.connection import process_start, read_connection
from tests.client.conftest import Recorder, States, ask, shut_down, wait_until
from tests.client.real_engine import (
    COMMAND,
    MODEL,
    PATIENCE,
    check_result,
    make_scene,
    needs_engine,
    request_for,
    running,
)

pytestmark = needs_engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def small(folder) -> Path:
    """A scene of a few row blocks."""
    return make_scene(folder / "small.tif", 320, 448)


@pytest.fixture(scope="module")
def tall(folder) -> Path:
    """A scene that takes long enough to be interrupted."""
    return make_scene(folder / "tall.tif", 256, 3072)


@pytest.fixture(scope="module")
def daemon_home(tmp_path_factory) -> Path:
    """One home for the tests of this file, in any order; the daemon in it ends."""
    home = tmp_path_factory.mktemp("rest-home")
    yield home
    shut_down(home)


@pytest.fixture
def states() -> States:
    return States()


@pytest.fixture
def engine(daemon_home, states, monkeypatch):
    monkeypatch.delenv("REST_BACKEND", raising=False)
    with Engine(daemon_home, COMMAND, on_state=states) as made:
        yield made


def test_started_on_demand_and_a_scene_through_the_whole_chain(
    states, small, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.delenv("REST_BACKEND", raising=False)
    home = tmp_path_factory.mktemp("own-home")  # of its own: no daemon runs in it
    listener, output = Recorder(), tmp_path / "classes.tif"
    try:
        with Engine(home, COMMAND, on_state=states) as engine:
            done = engine.wait(engine.segment(request_for(small, output), listener), PATIENCE)
            assert [state.name for state in states.all] == ["starting", "ready"]
    finally:
        shut_down(home)
    assert done is not None and Path(done.output) == output and done.seq == len(listener.blocks) > 0
    check_result(listener, output, (320, 448))
    assert listener.events[0] == "submitted" and listener.events[-1] == "done"
    assert "sweep" in [note.stage for note in listener.notes]
    assert done.summary["fallback_ops"] == [] and done.summary["peak_rss_bytes"] > 10_000_000


def test_the_daemon_is_found_after_the_clock_was_set(engine, daemon_home):
    assert ask(engine.models)[1] is None
    file = daemon_home / "connection.json"
    written = file.read_text()
    fields = json.loads(written)
    file.write_text(json.dumps({**fields, "pid_start": fields["pid_start"] + 3600}))
    try:
        with Engine(daemon_home, COMMAND) as late:
            status, error = ask(late.status)
        assert error is None and status["pid"] == fields["pid"]
    finally:
        file.write_text(written)


def test_models_and_status(engine, daemon_home):
    models, error = ask(engine.models)
    assert error is None and models[0]["id"] == MODEL
    assert {"bands", "classes", "score", "licence"} <= set(models[0])
    status, error = ask(engine.status)
    assert error is None and status["pid"] == read_connection(daemon_home).pid


def test_a_part_of_the_scene_under_credit_by_hand(engine, small, tmp_path):
    listener, output = Recorder(), tmp_path / "classes.tif"
    window = (32, 64, 128, 320)
    job = engine.segment(request_for(small, output, window=window, manual_credit=True), listener)
    wait_until(lambda: output.exists(), PATIENCE)  # computed to the end, whoever listens
    assert listener.blocks == [] and not job.ended
    job.grant(1)
    wait_until(lambda: len(listener.blocks) == 1)
    time.sleep(0.3)
    assert len(listener.blocks) == 1
    assert (listener.blocks[0].column, listener.blocks[0].row, listener.blocks[0].width) == (32, 64, 128)
    while not job.ended:
        job.grant(1)
        time.sleep(0.02)
    assert listener.blocks[-1].row + listener.blocks[-1].height == 64 + 320
    values = b"".join(block.values for block in listener.blocks)
    with rasterio.open(output) as file:
        assert file.read(1).tobytes() == values


def test_the_daemons_own_refusals_arrive_with_code_and_sentence(engine, small, tmp_path):
    for request in (
        request_for(tmp_path / "missing.tif", tmp_path / "a.tif"),
        JobRequest(str(small), "no-such-model", str(tmp_path / "b.tif")),
        request_for(small, tmp_path / "no" / "folder" / "c.tif"),
    ):
        with pytest.raises(ClientError) as raised:
            engine.wait(engine.segment(request), PATIENCE)
        assert raised.value.code.startswith("E_") and raised.value.code != "E_INTERNAL"
        assert raised.value.message.endswith(".")
    assert list(tmp_path.iterdir()) == []


def test_cancel_in_mid_job_leaves_nothing_behind(engine, daemon_home, tall, tmp_path):
    listener = Recorder()
    job = engine.segment(request_for(tall, tmp_path / "classes.tif"), listener)
    wait_until(lambda: running(listener), PATIENCE)
    job.cancel()
    with pytest.raises(ClientError) as raised:
        engine.wait(job, PATIENCE)
    assert raised.value.code == "E_CANCELLED" and job.state == "cancelled"
    assert list(tmp_path.iterdir()) == []
    assert not (daemon_home / "spool" / job.id).exists()


def test_a_daemon_killed_in_mid_job_is_started_again_and_the_result_is_whole(engine, states, tall, tmp_path):
    listener, output = Recorder(), tmp_path / "classes.tif"
    job = engine.segment(request_for(tall, output), listener)
    wait_until(lambda: running(listener), PATIENCE)
    killed = states.all[-1].pid
    os.kill(killed, signal.SIGKILL)
    assert engine.wait(job, PATIENCE) is not None
    assert states.all[-1].name == "ready" and states.all[-1].pid != killed
    check_result(listener, output, (256, 3072))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "classes.qml",
        "classes.tif",
        "classes.tif.aux.xml",
    ]


def test_a_stale_connection_file_leads_to_a_new_daemon(engine, daemon_home, states, small, tmp_path):
    ask(engine.models)
    old = read_connection(daemon_home)
    os.kill(old.pid, signal.SIGKILL)
    states.wait("stopped", 60)
    assert (daemon_home / "connection.json").exists()
    assert engine.wait(engine.segment(request_for(small, tmp_path / "classes.tif")), PATIENCE) is not None
    assert read_connection(daemon_home).pid != old.pid


def test_close_leaves_the_job_running_and_another_client_sees_it(engine, daemon_home, small, tmp_path):
    output = tmp_path / "classes.tif"
    with Engine(daemon_home, COMMAND) as first:
        listener = Recorder()
        job = first.segment(request_for(small, output), listener)
        wait_until(lambda: bool(job.id), PATIENCE)
        before = time.monotonic()
        first.close()
        assert time.monotonic() - before < 10.0  # the job alone may take longer
    deadline = time.monotonic() + PATIENCE
    while True:
        status, error = ask(engine.status)
        assert error is None
        mine = next(entry for entry in status["jobs"] if entry["job"] == job.id)
        if mine["state"] == "done":
            break
        assert mine["state"] in ("queued", "running") and time.monotonic() < deadline
        time.sleep(0.2)
    assert output.exists()


def test_shutdown_in_mid_job_says_so_and_the_job_goes_on_at_the_next_start(engine, states, tall, tmp_path):
    listener, output = Recorder(), tmp_path / "classes.tif"
    job = engine.segment(request_for(tall, output), listener)
    wait_until(lambda: running(listener), PATIENCE)
    pid = states.all[-1].pid
    errors: list[ClientError | None] = []
    ended = threading.Event()
    engine.shutdown(lambda error: (errors.append(error), ended.set()))
    assert ended.wait(60) and errors == [None]
    assert process_start(pid) is None and read_connection(engine.home) is None
    assert states.all[-1].name == "stopped"
    with pytest.raises(ClientError) as raised:
        engine.wait(job, 10)
    assert raised.value.code == "E_ENGINE_STOPPED"
    assert not output.exists()
    engine.start()
    with contextlib.suppress(ClientError):
        wait_until(output.exists, PATIENCE)
    assert output.exists()
