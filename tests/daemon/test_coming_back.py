"""Jobs of earlier sessions: found by key or id, shown, replayed, deleted; and those nobody comes back to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rest_backend.daemon.journal import Journal
from rest_backend.wire import frames
from rest_backend.wire.messages import (
    HEADER_LIMIT,
    Cancel,
    Credit,
    DaemonStatus,
    Delete,
    Deleted,
    Done,
    Error,
    Failed,
    JobStatus,
    Rows,
    SegmentJob,
    Status,
    Submit,
    Submitted,
    Watch,
)
from tests.daemon.fake_method import class_rows
from tests.daemon.harness import Client, Daemon, assemble, client, fake_job, wait_until

SCENE = class_rows((0, 0, 64, 100), 0, 100, noise=False).tobytes()


def restart(daemon: Daemon) -> None:
    daemon.kill()
    daemon.connection_path.unlink()
    daemon.start()


# --- found again ---------------------------------------------------------------------------


def test_a_job_is_found_by_its_key_in_a_later_session(daemon: Daemon, tmp_path: Path) -> None:
    body = fake_job(tmp_path, title="Roofs", gate=tmp_path / "gate")
    body.title, body.bands = "Roofs", [3, 1, 2]
    with client(daemon.start()) as served:
        began = time.time()
        job = served.submit(body, key="noted")
        assert len(list(served.rows(job, 5))) == 5
    with client(daemon.connection) as served:
        status = served.ask(Watch(key="noted"), JobStatus)
        assert (status.job, status.key, status.title, status.state) == (job, "noted", "Roofs", "running")
        assert status.asked == body
        assert status.device == "cpu"
        assert began - 1 <= status.submitted_at <= status.started_at <= time.time() + 1
        assert status.ended_at == 0
        (tmp_path / "gate").touch()
        done = served.expect(Done)
        assert served.ask(Status(job=job), JobStatus).ended_at >= status.started_at
        assert assemble(list(served.rows(job, done.seq)), 64, 100) == SCENE
        for unknown in (Watch(key="other"), Watch(), Watch(job="other", key="noted")):
            assert served.ask(unknown, Error).code == "E_UNKNOWN_JOB"


def test_a_done_job_is_replayed_after_the_daemon_was_killed(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path))
        first = list(served.rows(job, served.expect(Done).seq))
    restart(daemon)
    with client(daemon.connection) as served:
        assert served.ask(Watch(key="key"), JobStatus).state == "done"
        assert list(served.rows(job, served.expect(Done).seq)) == first


def test_the_list_names_jobs_and_leaves_out_what_is_long(served: Client, tmp_path: Path) -> None:
    body = fake_job(tmp_path)
    body.title = "Roofs"
    job = served.submit(body)
    served.expect(Done)
    (listed,) = served.ask(Status(), DaemonStatus).jobs
    assert (listed.job, listed.key, listed.title, listed.device) == (job, "key", "Roofs", "cpu")
    assert 0 < listed.submitted_at <= listed.started_at <= listed.ended_at
    assert (listed.asked, listed.summary) == (None, {})


def test_the_list_stays_within_one_header_newest_first(daemon: Daemon, tmp_path: Path) -> None:
    (daemon.home).mkdir(mode=0o700)
    journal = Journal(daemon.home / "journal.sqlite")
    for number in range(400):
        job = journal.submit(f"k{number}", SegmentJob(scene="/s" * 100, model="m", output="/o")).id
        journal.fail(job, "E_X", "x")
    journal.close()
    with client(daemon.start()) as served:
        listed = [job.key for job in served.ask(Status(), DaemonStatus).jobs]
    assert 20 < len(listed) < 400
    assert listed == [f"k{number}" for number in range(399, 399 - len(listed), -1)]


def test_an_answer_about_a_job_of_long_paths_fits_a_header(served: Client, tmp_path: Path) -> None:
    names = ("scene", "output", "aoi", "confidence", "probabilities")
    long = SegmentJob(model="\\" * 4000, **{name: "/" + "\\" * 4000 for name in names})
    served.send(Submit(request="r", key="long", job=long))
    job = served.expect(Submitted).job
    status = served.ask(Status(job=job), JobStatus)
    assert (status.job, status.scene, status.asked) == (job, long.scene, None)
    assert len(frames.encode(status)[1]) <= HEADER_LIMIT
    served.ask(Cancel(job=job), JobStatus)


# --- deleted -------------------------------------------------------------------------------


def test_a_deleted_job_is_gone_with_its_rows_and_its_output_stays(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served, client(daemon.connection) as other:
        job = served.submit(fake_job(tmp_path))
        output = Path(served.expect(Done).output)
        other.attach(job, 1)
        assert isinstance(other.data_message()[0], Rows)
        assert served.ask(Delete(job=job), Deleted).job == job
        gone = other.data_message()[0]
        assert (type(gone), gone.code, gone.job) == (Error, "E_UNKNOWN_JOB", job)
        other.data.send_multipart(frames.encode(Credit(job=job, credit=1)))
        assert other.data_message()[0].code == "E_UNKNOWN_JOB"
        for message in (Status(job=job), Watch(key="key"), Delete(job=job)):
            assert served.ask(message, Error).code == "E_UNKNOWN_JOB"
        assert served.ask(Status(), DaemonStatus).jobs == []
        assert list((daemon.home / "spool").iterdir()) == []
        assert output.exists()
        again = served.submit(fake_job(tmp_path))
        assert again != job
        assert served.expect(Done).job == again


def test_a_job_that_has_not_ended_is_not_deleted(served: Client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    running = served.submit(fake_job(tmp_path, gate=gate), key="running")
    queued = served.submit(fake_job(tmp_path, "queued", gate=gate), key="queued")
    assert len(list(served.rows(running, 5))) == 5
    for job in (running, queued):
        refused = served.ask(Delete(job=job), Error)
        assert (refused.code, refused.job) == ("E_JOB_RUNNING", job)
    gate.touch()
    assert {served.expect(Done).job, served.expect(Done).job} == {running, queued}


def test_a_cancelled_job_can_be_deleted(served: Client, tmp_path: Path) -> None:
    job = served.submit(fake_job(tmp_path, gate=tmp_path / "never"))
    served.ask(Cancel(job=job), JobStatus)
    served.expect(Failed)
    served.ask(Delete(job=job), Deleted)
    assert served.ask(Status(), DaemonStatus).jobs == []


# --- abandoned -----------------------------------------------------------------------------


def state(daemon: Daemon, job: str) -> JobStatus:
    with client(daemon.connection) as looking:  # who only looks does not watch
        return looking.ask(Status(job=job), JobStatus)


@pytest.mark.parametrize("running", [True, False])
def test_a_job_nobody_watches_is_cancelled(daemon: Daemon, tmp_path: Path, running: bool) -> None:
    blocker = fake_job(tmp_path, "blocker", gate=tmp_path / "gate")
    with client(daemon.start()) as served:
        if not running:
            served.submit(blocker, key="blocker")
        job = served.submit(fake_job(tmp_path, gate=tmp_path / "never"), abandon_seconds=1)
        if running:
            assert len(list(served.rows(job, 5))) == 5
    wait_until(lambda: state(daemon, job).state == "cancelled")
    ended = state(daemon, job)
    assert ended.code == "E_CANCELLED"
    assert "1 seconds no client watched it" in ended.message
    assert not (tmp_path / "out.tif").exists()
    assert not (daemon.home / "spool" / job).exists()
    (tmp_path / "gate").touch()


def test_a_job_that_is_watched_is_not_abandoned_nor_one_that_does_not_mind(
    daemon: Daemon, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with client(daemon.start()) as staying:
        with client(daemon.connection) as leaving:
            minds = leaving.submit(fake_job(tmp_path, gate=gate), key="minds", abandon_seconds=1)
            leaving.submit(fake_job(tmp_path, "other", gate=gate), key="other")
            staying.ask(Watch(key="minds"), JobStatus)
        time.sleep(2.5)
        assert state(daemon, minds).state == "running"
        gate.touch()
        assert staying.expect(Done).job == minds
    wait_until(lambda: (tmp_path / "other.tif").exists())


def test_the_clock_starts_anew_with_the_daemon(daemon: Daemon, tmp_path: Path) -> None:
    with client(daemon.start()) as served:
        job = served.submit(fake_job(tmp_path, gate=tmp_path / "never", gate_always=1), abandon_seconds=1)
    restart(daemon)
    wait_until(lambda: state(daemon, job).state == "cancelled")
    restart(daemon)
    assert state(daemon, job).state == "cancelled"


def test_coming_back_stops_the_clock(tmp_path: Path) -> None:
    """By a clock of the test's own: due() is all the broker calls."""
    from rest_backend.daemon.abandon import Abandonment

    watchers: set[str] = set()
    abandonment = Abandonment(watchers.__contains__)
    journal = Journal(tmp_path / "journal.sqlite")
    body = SegmentJob(scene="/s", model="m", output="/o")
    minds, patient = journal.submit("a", body, 60), journal.submit("b", body)
    for record in (minds, patient):
        abandonment.follow(record)
    assert list(abandonment.due(100)) == list(abandonment.due(159)) == []
    watchers.add(minds.id)
    assert list(abandonment.due(161)) == []
    watchers.clear()
    assert list(abandonment.due(162)) == list(abandonment.due(221)) == []
    assert list(abandonment.due(222)) == [minds.id]
    assert list(abandonment.due(1000)) == []
    journal.close()


# --- the inbox -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["done", "failed", "cancelled"])
def test_a_jobs_own_files_go_when_it_ends(daemon: Daemon, tmp_path: Path, end: str) -> None:
    with client(daemon.start()) as served:
        folder = daemon.home / "inbox" / "key"
        (folder / "deep").mkdir(parents=True)
        (folder / "scene.tif").write_bytes(b"x")
        other = daemon.home / "inbox" / "other"
        other.mkdir()
        fault = {"done": "", "failed": "input", "cancelled": ""}[end]
        gate = tmp_path / "gate"
        job = served.submit(fake_job(tmp_path, fault=fault, gate=gate))
        if end != "failed":
            assert len(list(served.rows(job, 5))) == 5
            assert (folder / "scene.tif").exists()
        if end == "cancelled":
            served.ask(Cancel(job=job), JobStatus)
        gate.touch()
        served.expect(Done if end == "done" else Failed)
        assert not folder.exists()
        assert other.exists()


@pytest.mark.parametrize("key", [".", "..", ""])
def test_a_key_that_is_no_folder_is_refused(served: Client, tmp_path: Path, key: str) -> None:
    assert served.ask(Submit(key=key, job=fake_job(tmp_path)), Error).code == "E_KEY"
