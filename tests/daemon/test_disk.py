"""A disk that is full and a scene that changes: the code reaches the client, nothing is left."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rest_backend.daemon import link
from rest_backend.daemon.jobs import FULL_DISK_SECONDS
from rest_backend.daemon.journal import Journal
from rest_backend.daemon.spool import Block, RowSpool
from rest_backend.errors import ResourceError
from rest_backend.wire.messages import Done, Failed, JobStatus, SegmentJob, Status
from tests.daemon.harness import Client, Daemon, fake_job
from tests.daemon.test_tidying import Desk

JOB = SegmentJob(scene="/s", model="m", output="/o")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("changed", "E_SCENE_CHANGED"),
        ("disk_full", "E_DISK_FULL"),
        pytest.param(
            "spool_full",
            "E_DISK_FULL",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is a Linux device"),
        ),
    ],
)
def test_the_code_reaches_the_client_and_nothing_is_left(
    served: Client, daemon: Daemon, tmp_path: Path, fault: str, code: str
) -> None:
    (daemon.home / "inbox" / "key").mkdir()
    job = served.submit(fake_job(tmp_path, fault=fault, products="classes,confidence"))
    failed = served.expect(Failed)
    assert (failed.job, failed.code) == (job, code)
    if code == "E_DISK_FULL":
        assert "bytes are free" in failed.message
    status = served.ask(Status(job=job), JobStatus)
    assert (status.state, status.code, status.next_seq, status.rows_done) == ("failed", code, 0, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.attempts"]
    assert list((daemon.home / "spool").iterdir()) == []
    assert list((daemon.home / "inbox").iterdir()) == []


def test_a_job_whose_rows_have_no_room_is_refused_before_it_computes(
    served: Client, daemon: Daemon, tmp_path: Path
) -> None:
    job = served.submit(fake_job(tmp_path, width=10**6, height=10**9, products="classes,confidence"))
    failed = served.expect(Failed)
    assert (failed.job, failed.code) == (job, "E_DISK_FULL")
    assert f"need {2 * 10**15:,} bytes" in failed.message
    assert "bytes are free" in failed.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out.attempts"]
    assert list((daemon.home / "spool").iterdir()) == []


def test_a_full_disk_under_the_spool_names_the_free_bytes(tmp_path: Path) -> None:
    spool = RowSpool(tmp_path / "job", (0, 0, 4, 4), 0, {})
    spool.append("classes", 0, bytes(4))
    plane = spool._planes["classes"]
    plane.file.close()
    try:
        plane.file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115 - closed by the spool
    except FileNotFoundError:
        pytest.skip("/dev/full is a Linux device")
    with pytest.raises(ResourceError) as full:
        spool.append("classes", 1, bytes(4))
    assert full.value.code == "E_DISK_FULL"
    assert "bytes are free" in full.value.message
    spool.close()


def full_journal(journal: Journal) -> None:
    """From now on SQLite has no page to add, as on a full disk."""
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count={pages}")


def many_blocks(count: int) -> list[Block]:
    return [Block(seq=seq, window=(0, seq, 10, 1), offset=10 * seq, crc32=0) for seq in range(count)]


def test_a_journal_on_a_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    job = journal.submit("k", JOB).id
    journal.start(job)
    journal.add_blocks(job, many_blocks(3))
    full_journal(journal)
    with pytest.raises(ResourceError) as full:
        journal.add_blocks(job, many_blocks(5000)[3:])
    assert full.value.code == "E_DISK_FULL"
    assert "bytes are free" in full.value.message
    assert journal.job(job).next_seq == 3
    with pytest.raises(ResourceError):
        for number in range(1000):
            journal.submit(f"k{number}", JOB)
    assert journal.fail(job, "E_DISK_FULL", "x").state == "failed"
    journal.close()


def test_a_job_whose_blocks_cannot_be_journaled_fails(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home", keep_bytes=1000)
    job = desk.journal.submit("key", JOB).id
    desk.supervisor.tick(0.0)
    (worker,) = desk.supervisor.live()
    worker.job = desk.journal.start(job).id
    desk.rows(job).parent.mkdir()
    desk.rows(job).write_bytes(bytes(10))
    full_journal(desk.journal)
    desk.jobs.handle(worker, link.Spooled(id=job, blocks=many_blocks(5000)))
    ((told, failed),) = desk.told
    assert (told, failed.code) == (job, "E_DISK_FULL")
    assert desk.journal.job(job).state == "failed"
    assert not desk.rows(job).parent.exists()
    assert (worker.job, worker.process.wait(10)) == ("", -9)
    desk.close()


def test_a_full_disk_does_not_end_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path / "home", keep_bytes=1000)
    job = desk.journal.submit("key", JOB).id
    desk.supervisor.tick(0.0)
    (worker,) = desk.supervisor.live()
    worker.job = desk.journal.start(job).id

    def full(*arguments: object) -> None:
        raise ResourceError("E_DISK_FULL", "Full.")

    with monkeypatch.context() as disk:
        disk.setattr(desk.journal, "add_blocks", full)
        disk.setattr(desk.journal, "fail", full)
        with pytest.raises(ResourceError):  # the broker's loop goes on
            desk.jobs.handle(worker, link.Spooled(id=job, blocks=many_blocks(1)))
        desk.jobs.tick(10.0)
    assert (desk.journal.job(job).state, desk.told) == ("running", [])
    desk.jobs.tick(10.0 + FULL_DISK_SECONDS - 0.1)
    assert desk.journal.job(job).state == "running"
    desk.jobs.tick(10.0 + FULL_DISK_SECONDS)
    assert (desk.journal.job(job).state, desk.journal.job(job).code) == ("failed", "E_DISK_FULL")
    assert [told for told, _ in desk.told] == [job]
    desk.close()


def test_the_next_job_runs_when_there_is_room_again(served: Client, tmp_path: Path) -> None:
    served.submit(fake_job(tmp_path, fault="disk_full"), key="first")
    served.expect(Failed)
    served.submit(fake_job(tmp_path, "next"), key="next")
    assert served.expect(Done)
