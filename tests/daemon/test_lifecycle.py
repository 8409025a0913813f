"""Start and end of the daemon: one a folder, private files, stale files, idleness, what it imports."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from rest_backend.daemon import serve as serve_module
from rest_backend.daemon.connection import Connection, read_connection, remove_connection, write_connection
from rest_backend.daemon.files import write_private
from rest_backend.daemon.home import Home, home
from rest_backend.errors import InputError
from rest_backend.wire.messages import DaemonStatus, Done, Goodbye, Shutdown, Status
from tests.daemon.harness import Daemon, client, fake_job, wait_until

IDLE_SECONDS = 5.0  # a busy machine must be able to start a client in that time


def test_connection_file_tells_who_serves(daemon: Daemon) -> None:
    connection = daemon.start()
    process = psutil.Process(daemon.process.pid)
    assert (connection.pid, connection.format, connection.protocol) == (daemon.process.pid, 1, 1)
    assert connection.pid_start == pytest.approx(process.create_time(), abs=0.01)
    with client(connection) as served:
        status = served.ask(Status(), DaemonStatus)
        assert (status.pid, status.boot) == (connection.pid, connection.boot)
    ports = {
        listening.laddr for listening in process.net_connections() if listening.status == psutil.CONN_LISTEN
    }
    assert {address.ip for address in ports} == {"127.0.0.1"}
    assert {f"tcp://127.0.0.1:{address.port}" for address in ports} == {connection.control, connection.data}


def test_everything_in_the_folder_is_private(daemon: Daemon, tmp_path: Path) -> None:
    daemon.home.mkdir(mode=0o755)
    with client(daemon.start()) as served:
        served.submit(fake_job(tmp_path))
        served.expect(Done)
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [daemon.home, *daemon.home.rglob("*")]}
        names = {path.name for path in modes}
    assert {
        "connection.json",
        "journal.sqlite",
        "classes.raw",
        "server.json",
        "daemon.lock",
        "worker-0.log",
    } <= names
    assert {str(path): oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


def test_a_second_daemon_says_who_is_there(daemon: Daemon) -> None:
    connection = daemon.start()
    second = daemon.spawn()
    _, told = second.communicate(timeout=30)
    assert second.returncode == 2
    assert told.decode().startswith("E_ALREADY_RUNNING: ")
    assert str(connection.pid) in told.decode()
    assert daemon.connection == connection
    with client(connection) as served:
        assert served.ask(Status(), DaemonStatus).pid == connection.pid


def test_a_stale_connection_file_is_replaced(daemon: Daemon) -> None:
    daemon.home.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = Connection(
        pid=ended.pid,
        pid_start=time.time(),
        boot="old",
        version="0",
        protocol=1,
        control="tcp://127.0.0.1:1",
        data="tcp://127.0.0.1:1",
        server_public="x" * 40,
        client_public="x" * 40,
        client_secret="x" * 40,
    )
    write_connection(daemon.connection_path, stale)
    daemon.process = daemon.spawn()
    wait_until(lambda: daemon.connection.boot != "old")
    with client(daemon.connection) as served:
        assert served.ask(Status(), DaemonStatus).pid == daemon.process.pid


def test_only_its_own_connection_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text("{")
    assert read_connection(path) is None
    remove_connection(path, "mine")
    assert path.exists()


def test_it_ends_when_nobody_needs_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", idle_minutes=IDLE_SECONDS / 60)
    try:
        with client(daemon.start()) as served:
            served.submit(fake_job(tmp_path))
            served.expect(Done)
            time.sleep(IDLE_SECONDS + 1.5)  # longer than it would wait alone
            assert daemon.process.poll() is None
            assert served.ask(Status(), DaemonStatus)
        assert daemon.process.wait(60) == 0
        assert not daemon.connection_path.exists()
        assert "nobody needs the engine" in daemon.log
    finally:
        daemon.end()


def test_it_does_not_end_in_the_middle_of_a_job(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home", idle_minutes=IDLE_SECONDS / 60)
    gate = tmp_path / "gate"
    try:
        with client(daemon.start()) as served:
            served.submit(fake_job(tmp_path, gate=gate))
        time.sleep(IDLE_SECONDS + 1.5)
        assert daemon.process.poll() is None
        gate.touch()
        assert daemon.process.wait(60) == 0
        assert (tmp_path / "out.tif").exists()
    finally:
        daemon.end()


def test_it_ends_although_a_client_never_reads(daemon: Daemon) -> None:
    with client(daemon.start()) as served, client(daemon.connection):
        for _ in range(300):
            served.send(Status())
        served.ask(Shutdown(), Goodbye)
        assert daemon.process.wait(20) == 0


def test_the_broker_imports_nothing_heavy() -> None:
    script = (
        "import sys, rest_backend.daemon.serve, rest_backend.daemon.broker\n"
        "heavy = {'torch', 'numpy', 'rasterio', 'osgeo', 'timm'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_real_daemon_process_maps_no_heavy_library(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        served.submit(fake_job(tmp_path))
        served.expect(Done)
        mapped = {Path(entry.path).name for entry in psutil.Process(daemon.process.pid).memory_maps()}
    assert not {name for name in mapped if "torch" in name or "gdal" in name or "multiarray" in name}


def test_home_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REST_HOME", str(tmp_path / "chosen"))
    assert home() == tmp_path / "chosen"
    monkeypatch.delenv("REST_HOME")
    assert home().name == "rest-qgis"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert serve_module.serve(tmp_path / "file" / "home") == 2
    assert capsys.readouterr().err.startswith("E_HOME: ")


def test_a_damaged_journal_is_told_and_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Home(tmp_path / "home")
    place.prepare()
    place.journal.write_bytes(b"not a database" * 100)
    assert serve_module.serve(place.folder) == 2
    assert capsys.readouterr().err.startswith("E_JOURNAL: ")
    assert place.journal.read_bytes() == b"not a database" * 100
    assert not place.connection.exists()


def test_private_files_appear_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError):
        write_private(tmp_path / "missing" / "file", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_sigint_ends_in_order_too(daemon: Daemon) -> None:
    daemon.start()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(20) == 0
    assert not daemon.connection_path.exists()


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(InputError) as refused:
        Home(tmp_path / "home").prepare()
    assert refused.value.code == "E_HOME"


def test_connection_file_is_what_the_contract_says(daemon: Daemon) -> None:
    daemon.start()
    fields = msgspec.json.decode(daemon.connection_path.read_bytes())
    assert set(fields) == {
        "format", "pid", "pid_start", "boot", "version", "protocol", "control", "data",
        "server_public", "client_public", "client_secret",
    }  # fmt: skip
