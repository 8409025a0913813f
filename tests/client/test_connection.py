"""The connection file: used only when it is safe, whole, and of a process that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rest_qgis.client import ClientError, connection
from rest_qgis.client.connection import process_start, read_connection
from tests.client.honest_peer import write_connection

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"  # pragma: allowlist secret - the published example key


@pytest.fixture
def fields():
    return {
        "format": 1,
        "pid": os.getpid(),
        "pid_start": process_start(os.getpid()),
        "boot": "b",
        "version": "1.0",
        "protocol": 1,
        "control": "tcp://127.0.0.1:5555",
        "data": "tcp://127.0.0.1:5556",
        "server_public": KEY,
        "client_public": KEY,
        "client_secret": KEY,
    }


def refused(home) -> ClientError:
    with pytest.raises(ClientError) as raised:
        read_connection(home)
    assert str(home) in raised.value.message
    return raised.value


def test_a_good_file(home, fields):
    write_connection(home, fields)
    connection = read_connection(home)
    assert connection.alive and connection.pid == os.getpid() and connection.client_private == KEY
    assert connection.control.endswith(":5555") and connection.data.endswith(":5556")


def test_no_file(home):
    assert read_connection(home) is None


def test_the_start_time_agrees_with_psutil():
    psutil = pytest.importorskip("psutil", reason="the daemon's side is not in QGIS's Python")
    assert abs(psutil.Process().create_time() - process_start(os.getpid())) < 1.5


def test_a_process_that_ended_is_stale_and_so_is_one_that_was_not_waited_for(home, fields):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(child.pid)
    assert started is not None and abs(started - time.time()) < 120
    write_connection(home, {**fields, "pid": child.pid, "pid_start": started})
    assert read_connection(home) is not None
    child.stdin.close()
    deadline = time.monotonic() + 20
    while read_connection(home) is not None:  # a zombie by then
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.wait()
    assert process_start(child.pid) is None


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only there start times move")
def test_a_daemon_that_runs_is_found_after_the_clock_was_set(home, fields):
    import fcntl

    write_connection(home, {**fields, "pid_start": fields["pid_start"] - 3600})
    with (home / "daemon.lock").open("w") as lock:
        assert read_connection(home) is None
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read_connection(home)
        assert found is not None and found.alive
    assert read_connection(home) is None


def test_setting_the_clock_does_not_end_a_link(home, fields, monkeypatch):
    write_connection(home, fields)
    found = read_connection(home)
    start = process_start(os.getpid())
    if not sys.platform.startswith("linux"):
        pytest.skip("start times move with the clock on Linux only")
    monkeypatch.setattr(connection, "process_start", lambda pid: start + 3600)
    assert found.alive
    assert read_connection(home) is None


def test_a_number_used_again_by_another_process_is_stale(home, fields):
    write_connection(home, {**fields, "pid_start": fields["pid_start"] - 60})
    assert read_connection(home) is None


@pytest.mark.parametrize("pid", [0, -1, 2**40])
def test_a_number_that_is_no_process(home, fields, pid):
    write_connection(home, {**fields, "pid": pid})
    assert read_connection(home) is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604])
def test_a_file_others_may_read_or_write(home, fields, mode):
    write_connection(home, fields, mode)
    error = refused(home)
    assert error.code == "E_CONNECTION_FILE" and "other users" in error.message


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user(home, fields):
    os.chown(write_connection(home, fields), 12345, -1)
    assert "another user" in refused(home).message


def test_a_link_and_a_folder_in_its_place(home, fields):
    path = write_connection(home, fields)
    path.rename(home / "elsewhere")
    path.symlink_to(home / "elsewhere")
    assert refused(home).code == "E_CONNECTION_FILE"
    path.unlink()
    path.mkdir(mode=0o700)
    assert refused(home).code == "E_CONNECTION_FILE"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_a_pipe_in_its_place_does_not_block(home):
    os.mkfifo(home / "connection.json", 0o600)
    assert "plain file" in refused(home).message


def test_truncated_anywhere(home, fields):
    path = write_connection(home, fields)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert refused(home).code == "E_CONNECTION_FILE"
    path.write_bytes(whole + b" " * 20_000)
    assert refused(home).code == "E_CONNECTION_FILE"


@pytest.mark.parametrize(
    "change",
    [
        {"control": "tcp://192.168.0.7:5555"},
        {"data": "tcp://127.0.0.1.evil.example:80"},
        {"control": "ipc:///tmp/x"},
        {"data": "tcp://127.0.0.1:0"},
        {"client_secret": "short"},
        {"server_public": KEY[:-1] + "\n"},
        {"boot": 5},
        {"pid": "1"},
        {"pid_start": None},
        {"protocol": True},
    ],
)
def test_a_field_that_is_wrong(home, fields, change):
    write_connection(home, {**fields, **change})
    assert refused(home).code == "E_CONNECTION_FILE"


@pytest.mark.parametrize("name", ["pid", "pid_start", "boot", "version", "control", "data", "client_secret"])
def test_a_field_that_is_missing(home, fields, name):
    del fields[name]
    write_connection(home, fields)
    assert refused(home).code == "E_CONNECTION_FILE"


def test_not_an_object(home):
    path = home / "connection.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps([1]))
    assert refused(home).code == "E_CONNECTION_FILE"


@pytest.mark.parametrize("change", [{"format": 2}, {"protocol": 0}])
def test_a_running_daemon_of_another_version(home, fields, change):
    write_connection(home, {**fields, **change, "version": "7.7"})
    error = refused(home)
    assert error.code == "E_ENGINE_VERSION" and "7.7" in error.message and "update" in error.message


def test_a_stale_file_of_another_version_does_not_matter(home, fields):
    write_connection(home, {**fields, "format": 2, "pid_start": 1.0})
    assert read_connection(home) is None


def test_a_newer_daemon_may_still_speak_our_protocol_so_hello_decides(home, fields):
    write_connection(home, {**fields, "protocol": 2})
    assert read_connection(home).protocol == 2
