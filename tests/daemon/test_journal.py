"""The journal: idempotent submits, the state machine, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rest_backend.daemon.journal import IllegalMove, Journal
from rest_backend.daemon.spool import Block
from rest_backend.errors import InputError
from rest_backend.wire.messages import SegmentJob

JOB = SegmentJob(scene="/scene.tif", model="m", output="/out.tif")


def block(seq: int, width: int = 10, height: int = 2, product: str = "classes") -> Block:
    return Block(
        seq=seq,
        product=product,
        window=(0, seq * height, width, height),
        offset=seq * width * height,
        crc32=seq,
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    opened = Journal(tmp_path / "journal.sqlite")
    yield opened
    opened.close()


def test_same_key_and_job_is_the_same_job(journal: Journal) -> None:
    first = journal.submit("k", JOB)
    assert journal.submit("k", msgspec.structs.replace(JOB)).id == first.id
    assert journal.submit("other", JOB).id != first.id
    assert len(journal.jobs()) == 2


def test_same_key_for_another_job_is_a_conflict(journal: Journal) -> None:
    journal.submit("k", JOB)
    with pytest.raises(InputError) as refused:
        journal.submit("k", msgspec.structs.replace(JOB, model="n"))
    assert refused.value.code == "E_CONFLICT"
    assert len(journal.jobs()) == 1


def test_a_job_is_on_disk_when_submit_returns(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from rest_backend.daemon.journal import Journal\n"
        "from rest_backend.wire.messages import SegmentJob\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    job = SegmentJob(scene='/s', model='m', output='/o')\n"
        "    print(journal.submit(str(number), job).id, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "journal.sqlite"
    ended = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    journal = Journal(path)
    assert [record.id for record in journal.jobs("queued")] == ended.stdout.split()
    assert len(ended.stdout.split()) == 20
    journal.close()


def test_the_file_is_private_and_synchronous(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
        assert journal._database.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    journal.close()


def test_course_of_a_job(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    journal.start(job)
    journal.begun(job, (0, 0, 10, 4), ["/tmp/part"])
    journal.add_blocks(job, [block(0), block(1)])
    running = journal.job(job)
    assert (running.state, running.next_seq, running.class_bytes, running.rows_done, running.rows) == (
        "running",
        2,
        40,
        4,
        4,
    )
    assert running.temporary_paths == ["/tmp/part"]
    assert journal.blocks(job, 1) == [block(1)]
    done = journal.finish(job, {"pixels": 40})
    assert (done.state, done.summary, done.next_seq, done.temporary_paths) == ("done", {"pixels": 40}, 2, [])


@pytest.mark.parametrize(
    ("path", "move"),
    [
        ([], "finish"),
        (["start"], "start"),
        (["start", "finish"], "start"),
        (["start", "finish"], "fail"),
        (["start", "finish"], "cancelled"),
        (["fail"], "start"),
        (["cancelled"], "requeue"),
        ([], "requeue"),
    ],
)
def test_illegal_moves_are_refused_and_change_nothing(journal: Journal, path: list[str], move: str) -> None:
    job = journal.submit("k", JOB).id
    for step in path:
        _move(journal, step, job)
    before = journal.job(job)
    with pytest.raises(IllegalMove):
        _move(journal, move, job)
    assert journal.job(job) == before


def test_a_sequence_number_is_recorded_once(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    journal.start(job)
    journal.add_blocks(job, [block(0)])
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_blocks(job, [block(1), block(0)])
    assert journal.blocks(job) == [block(0)]  # all or nothing


def test_three_attempts_without_a_row_fail_the_job(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    for attempt in (1, 2):
        journal.start(job)
        record = journal.requeue(job, lost=True)
        assert (record.state, record.attempt) == ("queued", attempt)
    journal.start(job)
    record = journal.requeue(job, lost=True)
    assert (record.state, record.code, record.attempt) == ("failed", "E_WORKER_LOST", 3)


def test_a_lost_daemon_is_not_held_against_its_job(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    for attempt in range(1, 11):
        journal.start(job)
        record = journal.requeue(job, lost=True, blamed=False)
        assert (record.state, record.attempt) == ("queued", attempt)
    for state in ("queued", "queued", "failed"):
        journal.start(job)
        assert journal.requeue(job, lost=True).state == state


def test_new_rows_start_the_count_of_attempts_anew(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    for seq in range(6):
        journal.start(job)
        journal.add_blocks(job, [block(seq)])
        assert journal.requeue(job, lost=True).state == "queued"
    for _ in range(2):
        journal.start(job)
        assert journal.requeue(job, lost=True).state == "queued"
    journal.start(job)
    assert journal.requeue(job, lost=True).state == "failed"


def test_an_orderly_end_costs_no_attempt(journal: Journal) -> None:
    job = journal.submit("k", JOB).id
    for _ in range(5):
        journal.start(job)
        assert journal.requeue(job, lost=False).attempt == 0


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    foreign = tmp_path / "foreign.sqlite"
    database = sqlite3.connect(foreign)
    database.execute("PRAGMA user_version=99")
    database.close()
    for path in (damaged, foreign):
        with pytest.raises(InputError) as refused:
            Journal(path)
        assert refused.value.code == "E_JOURNAL"
        assert str(path) in refused.value.message


def _move(journal: Journal, move: str, job: str) -> None:
    arguments = {"finish": ({},), "fail": ("E_X", "x")}.get(move, ())
    keywords = {"lost": True} if move == "requeue" else {}
    getattr(journal, move)(job, *arguments, **keywords)


class JournalMachine(RuleBasedStateMachine):
    """Random lives of jobs against a plain model, with the file closed and opened in between."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(os.environ["HYPOTHESIS_JOURNAL"]) / f"{id(self)}.sqlite"
        self.path.unlink(missing_ok=True)
        self.journal = Journal(self.path)
        self.model: dict[str, dict] = {}

    @rule(key=st.sampled_from("abc"), model=st.sampled_from("mn"))
    def submit(self, key: str, model: str) -> None:
        known = self.model.get(key)
        job = msgspec.structs.replace(JOB, model=model)
        if known and known["model"] != model:
            with pytest.raises(InputError):
                self.journal.submit(key, job)
            return
        record = self.journal.submit(key, job)
        if known:
            assert record.id == known["id"]
        else:
            self.model[key] = {
                "id": record.id,
                "model": model,
                "state": "queued",
                "blocks": 0,
                "attempt": 0,
                "barren": 0,
            }

    @rule(
        key=st.sampled_from("abc"),
        move=st.sampled_from(["start", "finish", "fail", "cancelled", "lost", "shutdown"]),
    )
    def move(self, key: str, move: str) -> None:
        known = self.model.get(key)
        if known is None:
            return
        legal = {
            "queued": {"start", "fail", "cancelled"},
            "running": {"finish", "fail", "cancelled", "lost", "shutdown"},
        }
        calls = {
            "start": lambda job: self.journal.start(job),
            "finish": lambda job: self.journal.finish(job, {}),
            "fail": lambda job: self.journal.fail(job, "E_X", "x"),
            "cancelled": lambda job: self.journal.cancelled(job),
            "lost": lambda job: self.journal.requeue(job, lost=True),
            "shutdown": lambda job: self.journal.requeue(job, lost=False),
        }
        if move not in legal.get(known["state"], set()):
            with pytest.raises(IllegalMove):
                calls[move](known["id"])
            return
        calls[move](known["id"])
        if move == "start":
            known["at_start"] = known["blocks"]
        if move == "lost":
            known["attempt"] += 1
            known["barren"] = 0 if known["blocks"] > known["at_start"] else known["barren"] + 1
            move = "fail" if known["barren"] == 3 else "shutdown"
        known["state"] = {
            "start": "running",
            "finish": "done",
            "fail": "failed",
            "cancelled": "cancelled",
            "shutdown": "queued",
        }[move]
        if known["state"] in ("failed", "cancelled"):
            known["blocks"] = 0

    @rule(key=st.sampled_from("abc"), count=st.integers(1, 3))
    def rows(self, key: str, count: int) -> None:
        known = self.model.get(key)
        if known and known["state"] == "running":
            self.journal.add_blocks(known["id"], [block(known["blocks"] + index) for index in range(count)])
            known["blocks"] += count

    @rule()
    def reopen(self) -> None:
        self.journal.close()
        self.journal = Journal(self.path)

    @invariant()
    def agrees(self) -> None:
        records = {record.key: record for record in self.journal.jobs()}
        assert set(records) == set(self.model)
        for key, known in self.model.items():
            record = records[key]
            assert (record.id, record.state, record.next_seq, record.attempt) == (
                known["id"], known["state"], known["blocks"], known["attempt"],
            )  # fmt: skip

    def teardown(self) -> None:
        self.journal.close()


def test_random_lives_agree_with_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPOTHESIS_JOURNAL", str(tmp_path))
    JournalMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
    JournalMachine.TestCase().runTest()
