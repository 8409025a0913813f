"""Looking at a daemon from outside."""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec
import pytest

from rest_backend import __version__
from rest_backend.daemon.journal import Journal
from rest_backend.daemon.probe import ask_status, named_paths
from rest_backend.errors import ResourceError
from rest_backend.wire.messages import SegmentJob
from tests.daemon.harness import Daemon


def test_a_daemon_says_how_it_is(daemon: Daemon) -> None:
    connection = daemon.start()
    status = ask_status(connection, seconds=10)
    assert (status.pid, status.version, status.jobs) == (daemon.process.pid, __version__, [])


def test_a_stranger_hears_nothing(daemon: Daemon) -> None:
    connection = daemon.start()
    swapped = msgspec.structs.replace(connection, server_public=connection.client_public)
    with pytest.raises(ResourceError) as caught:
        ask_status(swapped, seconds=0.5)
    assert caught.value.code == "E_ENGINE_SILENT" and str(connection.pid) in caught.value.message


def test_keys_that_are_none(daemon: Daemon) -> None:
    connection = msgspec.structs.replace(daemon.start(), client_secret="ü")
    with pytest.raises(ResourceError) as caught:
        ask_status(connection, seconds=0.5)
    assert caught.value.code == "E_ENGINE_SILENT"


def test_a_port_nobody_answers_on(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        control = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
        connection = msgspec.structs.replace(daemon.start(), control=control)
        with pytest.raises(ResourceError) as caught:
            ask_status(connection, seconds=0.3)
    assert caught.value.code == "E_ENGINE_SILENT"


def test_the_paths_of_all_jobs_while_the_journal_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    assert named_paths(path) == set()
    journal = Journal(path)
    journal.submit(
        "key-1", SegmentJob(scene="/a b.tif", model="/cards/m.json", output="/c.tif", aoi="/d.gpkg")
    )
    assert named_paths(path) == {"/a b.tif", "/cards/m.json", "/c.tif", "/d.gpkg"}
    journal.close()
    assert len(named_paths(path)) == 4


def test_a_file_that_is_no_journal_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"no database" * 100)
    assert named_paths(tmp_path / "journal.sqlite") == set()
