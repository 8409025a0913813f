"""Starting on demand: where the command is found, with what environment, and once only."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from rest_qgis.client import ClientError, Engine, JobRequest, launcher
from rest_qgis.client.launcher import engine_environment, find_command
from rest_qgis.install import folder
from tests.client.conftest import (
    Recorder,
    States,
    ask,
    check_rows,
    shut_down,
    stop_processes,
    wait_until,
)
from tests.client.honest_peer import write_connection
from tests.client.peers import write_command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the peers are started by a shell script")


@pytest.fixture
def command(home, tmp_path, monkeypatch):
    """An honest peer as ``rest-backend``; whatever is started ends with the test."""
    made = write_command(tmp_path / "bin", "Peer")
    monkeypatch.setenv("REST_BACKEND", str(made))
    yield made
    shut_down(home)


def starts(home) -> list[int]:
    return [int(line) for line in (home / "starts").read_text().split()]


def test_started_on_demand_and_ended_by_shutdown(engine: Engine, home, request_of, states: States, command):
    listener = Recorder()
    assert engine.wait(engine.segment(request_of, listener), 60)
    check_rows(listener)
    assert [state.name for state in states.all] == ["starting", "ready"]
    ended: list[object] = []
    engine.shutdown(ended.append)
    states.wait("stopped")
    wait_until(lambda: ended == [None])
    assert launcher.read_connection(home) is None
    assert len(starts(home)) == 1


def test_start_without_a_job(engine, states, command):
    engine.start()
    assert states.wait("ready", 60).version == "9.9"
    engine.start()
    assert ask(engine.models)[1] is None


def test_status_and_shutdown_never_start_it(engine, home, command):
    assert ask(engine.status)[1].code == "E_ENGINE_STOPPED"
    ended: list[object] = []
    engine.shutdown(ended.append)
    wait_until(lambda: ended == [None])
    assert not (home / "starts").exists()


def test_environment_session_and_streams(engine, home, states, command, monkeypatch):
    foreign = ["PYTHONHOME", "PYTHONPATH", "QT_PLUGIN_PATH", "QGIS_PREFIX_PATH", "GDAL_DATA", "PROJ_LIB"]
    for name in [*foreign, "GDAL_DRIVER_PATH", "LD_LIBRARY_PATH", "LD_PRELOAD_X", "REST_KEPT", "OTHER"]:
        monkeypatch.setenv(name, "/nowhere")
    engine.start()
    states.wait("ready", 60)
    told = json.loads((home / "environment.json").read_text())
    kept = told["environment"]
    assert not [name for name in kept if name.startswith(("PYTHON", "QT", "QGIS", "GDAL", "PROJ", "LD_"))]
    assert kept["REST_KEPT"] == "/nowhere" and kept["OTHER"] == "/nowhere" and kept["REST_HOME"] == str(home)
    assert kept["PATH"] == os.environ["PATH"]
    assert told["session"] == told["pid"] != os.getsid(0)
    if Path("/proc/self/fd").is_dir():
        streams = [str(Path(f"/proc/{told['pid']}/fd/{number}").readlink()) for number in range(3)]
        assert streams == ["/dev/null", *[str(home / "log" / "start.log")] * 2]


def test_it_outlives_the_client(home, states, command, request_of):
    with Engine(home, on_state=states) as first:
        first.start()
        states.wait("ready", 60)
    with Engine(home) as second:
        assert second.wait(second.segment(request_of, Recorder()), 60)
    assert len(starts(home)) == 1


def test_two_clients_at_once_start_one(home, command, request_of):
    engines = [Engine(home) for _ in range(4)]
    try:
        jobs = [engine.segment(request_of, Recorder()) for engine in engines]
        for engine, job in zip(engines, jobs, strict=True):
            assert engine.wait(job, 60)
    finally:
        for engine in engines:
            engine.close()
    assert len(starts(home)) == 1


def test_a_stale_file_leads_to_a_new_start(engine, home, states, command):
    stale = {
        "format": 1,
        "pid": os.getpid(),
        "pid_start": 5.0,
        "boot": "old",
        "version": "0.1",
        "protocol": 1,
    }
    write_connection(home, stale)
    engine.start()
    assert states.wait("ready", 60).pid == starts(home)[0]


def test_one_killed_in_mid_job_is_started_again_and_the_job_ends(
    engine, home, request_of, tmp_path, monkeypatch
):
    monkeypatch.setenv("REST_BACKEND", str(write_command(tmp_path / "bin", "DyingProcessPeer")))
    try:
        listener = Recorder()
        assert engine.wait(engine.segment(request_of, listener), 60)
        check_rows(listener)
        assert len(starts(home)) == 2
        assert listener.events.count("submitted") == 1
    finally:
        shut_down(home)


def test_one_that_ends_while_nobody_needs_it_is_not_started_again(engine, home, states, command, request_of):
    engine.start()
    pid = states.wait("ready", 60).pid
    os.kill(pid, signal.SIGKILL)
    states.wait("stopped")
    assert len(starts(home)) == 1
    assert engine.wait(engine.segment(request_of, Recorder()), 60)  # on demand
    assert len(starts(home)) == 2


def test_one_that_crashes_again_and_again_is_given_up(
    engine, home, states, request_of, tmp_path, monkeypatch
):
    monkeypatch.setenv("REST_BACKEND", str(write_command(tmp_path / "bin", "HangingUpPeer")))
    try:
        job = engine.segment(request_of, Recorder())
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 120)
        assert raised.value.code == "E_ENGINE_START" and str(home / "log") in raised.value.message
    finally:
        shut_down(home)


def test_the_reason_of_a_failed_start_is_told(home, states, tmp_path, monkeypatch, request_of):
    script = tmp_path / "rest-backend"
    script.write_text("#!/bin/sh\necho first\necho the disk is full >&2\nexit 7\n")
    script.chmod(0o755)
    monkeypatch.setattr(launcher, "LOSER_SECONDS", 0.2)
    with Engine(home, script, on_state=states) as engine:
        listener = Recorder()
        job = engine.segment(request_of, listener)
        with pytest.raises(ClientError) as raised:
            engine.wait(job, 60)
    assert raised.value.code == "E_ENGINE_START" and listener.failure[0] == "E_ENGINE_START"
    assert "code 7" in raised.value.message and "the disk is full" in raised.value.message
    assert states.all[-1].code == "E_ENGINE_START"


def test_one_that_never_answers_is_given_up(home, tmp_path, monkeypatch, request_of):
    script = tmp_path / "rest-backend"
    script.write_text("#!/bin/sh\necho $$ >> $REST_HOME/starts\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(launcher, "START_SECONDS", 0.5)
    try:
        with Engine(home, script) as engine, pytest.raises(ClientError) as raised:
            engine.wait(engine.segment(request_of, Recorder()), 60)
        assert raised.value.code == "E_ENGINE_START" and "0 seconds" in raised.value.message
    finally:
        stop_processes(home)


def test_a_home_that_cannot_be_made(tmp_path, command, request_of):
    (tmp_path / "file").touch()
    with Engine(tmp_path / "file" / "home") as engine, pytest.raises(ClientError) as raised:
        engine.wait(engine.segment(request_of, Recorder()), 60)
    assert raised.value.code in ("E_ENGINE_START", "E_CONNECTION_FILE")


def test_close_during_a_start_is_quick(home, tmp_path, states):
    script = tmp_path / "rest-backend"
    script.write_text("#!/bin/sh\necho $$ >> $REST_HOME/starts\nexec sleep 60\n")
    script.chmod(0o755)
    engine = Engine(home, script, on_state=states)
    try:
        engine.start()
        states.wait("starting")
        before = time.monotonic()
        engine.close()
        assert time.monotonic() - before < 10.0  # the start would take 60
        wait_until(lambda: "rest-client" not in [thread.name for thread in threading.enumerate()])
    finally:
        wait_until(lambda: (home / "starts").exists())
        stop_processes(home)


def test_the_setting_is_asked_for_at_every_start(home, tmp_path, states, request_of):
    settings = [str(tmp_path / "nothing here")]
    with Engine(home, lambda: settings[0], on_state=states) as engine:
        try:
            engine.start()
            assert states.wait("failed").code == "E_ENGINE_MISSING"
            settings[0] = str(write_command(tmp_path / "bin", "Peer"))
            engine.start()
            states.wait("ready", 60)
        finally:
            shut_down(home)


def test_where_the_command_is_found(home, tmp_path, monkeypatch):
    variable, setting = write_command(tmp_path / "a", "Peer"), write_command(tmp_path / "b", "Peer")
    installed = folder.installed_command()
    write_command(installed.parent, "Peer")
    assert find_command(None) == installed
    assert find_command(str(setting)) == setting
    monkeypatch.setenv("REST_BACKEND", str(variable))
    assert find_command(str(setting)) == variable
    installed.unlink()
    monkeypatch.delenv("REST_BACKEND")
    with pytest.raises(ClientError) as raised:
        find_command(None)
    assert raised.value.code == "E_ENGINE_MISSING" and str(installed) in raised.value.message


@pytest.mark.parametrize("named", ["variable", "setting"])
def test_a_place_that_is_named_and_empty_is_an_error_not_a_reason_to_look_further(home, monkeypatch, named):
    write_command(folder.installed_command().parent, "Peer")
    if named == "variable":
        monkeypatch.setenv("REST_BACKEND", "/nowhere/rest-backend")
    with pytest.raises(ClientError) as raised:
        find_command("/nowhere/rest-backend")
    assert raised.value.code == "E_ENGINE_MISSING" and named in raised.value.message


def test_the_folders(monkeypatch, tmp_path):
    platformdirs = pytest.importorskip("platformdirs", reason="the daemon's side is not in QGIS's Python")
    for value in (str(tmp_path), None, ""):
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_DATA_HOME", value)
        assert str(folder.data_folder()) == platformdirs.user_data_dir("rest-qgis", appauthor=False)
    monkeypatch.delenv("REST_HOME", raising=False)
    assert folder.home_folder() == folder.data_folder()
    monkeypatch.setenv("REST_HOME", str(tmp_path / "own"))
    assert folder.home_folder() == tmp_path / "own"
    assert folder.backend_folder().parent == folder.data_folder()


def test_the_request_is_not_changed_by_the_environment(home):
    assert engine_environment(home)["REST_HOME"] == str(home)
    assert JobRequest("/a", "m", "/b").device == "auto"
