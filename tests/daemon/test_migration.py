"""A journal that an engine of version 0.1 wrote is taken over, with its rows, and a copy put aside."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import pytest

from rest_backend.daemon import migrations
from rest_backend.daemon.journal import SCHEMA_VERSION, Journal
from rest_backend.daemon.spool import read_block
from rest_backend.errors import InputError
from rest_backend.wire.messages import DaemonStatus, Done, JobStatus, Status, Watch
from tests.daemon.harness import Daemon, client

OLD = Path(__file__).with_name("data") / "journal-1.sqlite"  # of commit 763bd84: a job in each state
DONE, RUNNING = "4422183c04f02e3f", "9d90b34c9666c637"
WINDOW = (2, 5, 4, 6)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as that engine left it: six rows of one job, four of another, two rows a block."""
    made = tmp_path / "home"
    made.mkdir()
    shutil.copy(OLD, made / "journal.sqlite")
    for job, rows in ((DONE, 6), (RUNNING, 4)):
        folder = made / "spool" / job
        folder.mkdir(parents=True)
        (folder / "rows.raw").write_bytes(b"".join(bytes([row // 2 * 2]) * 4 for row in range(rows)))
    return made


def user_version(path: Path) -> int:
    database = sqlite3.connect(path)
    (version,) = database.execute("PRAGMA user_version").fetchone()
    database.close()
    return version


def test_jobs_and_blocks_are_taken_over(home: Path) -> None:
    assert user_version(home / "journal.sqlite") == 1
    journal = Journal(home / "journal.sqlite")
    records = {record.key.removesuffix("-key"): record for record in journal.jobs()}
    assert {name: record.state for name, record in records.items()} == {
        name: name for name in ("done", "running", "queued", "failed", "cancelled")
    }
    assert (records["done"].next_seq, records["done"].rows_done, records["done"].window) == (3, 6, WINDOW)
    assert (records["running"].next_seq, records["running"].rows_done) == (2, 4)
    assert records["done"].summary == {"valid_pixels": 24}
    assert records["failed"].code == "E_SCENE_MISSING"
    assert {record.submitted for record in records.values()} == {0.0}
    assert {record.abandon_seconds for record in records.values()} == {0}
    for job in (DONE, RUNNING):
        blocks = journal.blocks(job)
        assert {block.product for block in blocks} == {"classes"}
        assert [read_block(home / "spool" / job, block)[0] for block in blocks] == [0, 2, 4][: len(blocks)]
    assert journal.submit("queued-key", records["queued"].job).id == records["queued"].id
    journal.forget(DONE)
    assert journal.blocks(DONE) == []  # the tables still belong together
    journal.close()
    assert user_version(home / "journal.sqlite") == SCHEMA_VERSION
    Journal(home / "journal.sqlite").close()


def test_a_copy_is_put_aside(home: Path) -> None:
    Journal(home / "journal.sqlite").close()
    copy = migrations.backup_path(home / "journal.sqlite", 1)
    assert user_version(copy) == 1
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    old, new = sqlite3.connect(OLD), sqlite3.connect(copy)
    assert list(old.iterdump()) == list(new.iterdump())
    old.close()
    new.close()


def test_a_migration_that_breaks_off_changes_nothing_and_is_done_next_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrations._TO_VERSION_2 + "SELECT no_such_function();"
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "_TO_VERSION_2", broken)
        with pytest.raises(InputError) as refused:
            Journal(home / "journal.sqlite")
        assert refused.value.code == "E_JOURNAL"
    assert user_version(home / "journal.sqlite") == 1
    journal = Journal(home / "journal.sqlite")
    assert [read_block(home / "spool" / DONE, block)[0] for block in journal.blocks(DONE)] == [0, 2, 4]
    journal.close()


def test_the_daemon_serves_what_an_older_one_left(home: Path) -> None:
    daemon = Daemon(home, {"FAKE_START": "crash"})  # its unfinished jobs must not run: they name files
    try:
        with client(daemon.start()) as served:
            served.ask(Watch(job=DONE), JobStatus)
            done = served.expect(Done)
            blocks = list(served.rows(DONE, done.seq))
            assert b"".join(values for _, values in blocks) == b"".join(bytes([row]) * 8 for row in (0, 2, 4))
            listed = {job.job: job for job in served.ask(Status(), DaemonStatus).jobs}
            assert len(listed) == 5
    finally:
        daemon.end()
