r"""The journal: every job and every finished row block, in SQLite, before anybody hears of it.

One process, the broker, opens it. ``synchronous=FULL`` makes a commit survive a
power cut; a killed broker loses nothing it acknowledged. States of a job::

    queued -> running -> done
       ^         |  \
       |         |   +-> failed, cancelled
       +---------+      (worker or daemon lost: attempt + 1; daemon ended in order: same attempt)

``queued`` may also become ``failed`` or ``cancelled``.
"""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rest_backend.daemon.migrations import migrate
from rest_backend.daemon.spool import CLASSES, Block
from rest_backend.errors import InputError, ResourceError
from rest_backend.wire.messages import JobState, SegmentJob, Window

SCHEMA_VERSION = 2
ATTEMPTS_WITHOUT_ROWS = 3

_NEXT: dict[str, frozenset[str]] = {
    "queued": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"queued", "done", "failed", "cancelled"}),
}

_SCHEMA = """
CREATE TABLE jobs (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT NOT NULL UNIQUE,
    job BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt INTEGER NOT NULL DEFAULT 0,
    barren INTEGER NOT NULL DEFAULT 0,
    attempt_seq INTEGER NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,  -- 1: a client asked for it, 2: no client watched the job
    abandon_seconds INTEGER NOT NULL DEFAULT 0,
    device TEXT NOT NULL DEFAULT '',
    window TEXT NOT NULL DEFAULT 'null',
    temporary_paths TEXT NOT NULL DEFAULT '[]',
    code TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    summary TEXT NOT NULL DEFAULT '{}',
    next_seq INTEGER NOT NULL DEFAULT 0,  -- blocks, and of these the bytes that are classes
    class_bytes INTEGER NOT NULL DEFAULT 0,
    submitted REAL NOT NULL DEFAULT 0,
    started REAL NOT NULL DEFAULT 0,
    ended REAL
);
CREATE TABLE blocks (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq INTEGER NOT NULL,
    product TEXT NOT NULL,
    column_ INTEGER NOT NULL, row INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;
"""


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the journal knows it.

    Attributes:
        id: Made by the daemon; also the name of its spool folder.
        key: The client's idempotency key.
        attempt: How often it went back to the queue because something died.
        cancel: Whether it is to end, because a client asked for it or nobody watches it.
        abandon_seconds: It is to end when no client watches it for so long; 0: never.
        device: Where it runs or ran; empty before.
        window: Pixels of the scene the result covers, once known.
        temporary_paths: Files to delete when the attempt ends without a result.
        next_seq: Number of row blocks journaled, of all products.
        class_bytes: Bytes of those that are class rows.
        submitted: Seconds since the epoch; 0 while unknown, as is the next one.
        started: When it last left the queue.
        ended: The same, for jobs that ended.
    """

    position: int
    id: str
    key: str
    job: SegmentJob
    state: JobState
    attempt: int
    cancel: bool
    abandon_seconds: int
    device: str
    window: Window | None
    temporary_paths: list[str]
    code: str
    message: str
    summary: dict[str, Any]
    next_seq: int
    class_bytes: int
    submitted: float
    started: float
    ended: float | None

    @property
    def rows_done(self) -> int:
        """Class rows journaled."""
        return self.class_bytes // self.window[2] if self.window else 0

    @property
    def rows(self) -> int:
        """Rows of the result, 0 while unknown."""
        return self.window[3] if self.window else 0


class IllegalMove(RuntimeError):
    """A programming error: a state change the state machine does not have."""


class Journal:
    """The open journal.

    Args:
        path: SQLite file, made where missing.

    Raises:
        InputError: ``E_JOURNAL``: the file is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.parent
        try:
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, isolation_level=None)
            self._open(path)
        except (sqlite3.Error, OSError) as error:
            message = f"The engine's journal {path} cannot be used ({error}); move it away to start anew."
            raise InputError("E_JOURNAL", message) from error

    def _open(self, path: Path) -> None:
        database = self._database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("PRAGMA foreign_keys=ON")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif 0 < version < SCHEMA_VERSION:
            migrate(database, path)
        elif version != SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its version is {version}, this engine's is {SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- reading --------------------------------------------------------------------

    def job(self, identifier: str) -> JobRecord | None:
        """One job, or None when there is none of that id."""
        return next(self._select("WHERE jobs.id = ?", identifier), None)

    def job_of_key(self, key: str) -> JobRecord | None:
        """The job a client's key made, or None."""
        return next(self._select("WHERE jobs.key = ?", key), None)

    def jobs(self, *states: JobState) -> list[JobRecord]:
        """Jobs in the given states (all without one), oldest first."""
        if not states:
            return list(self._select(""))
        return list(self._select(f"WHERE state IN ({','.join('?' * len(states))})", *states))

    def latest_ended(self, limit: int) -> list[JobRecord]:
        """Jobs that ended, the newest first."""
        return list(self._select("WHERE ended IS NOT NULL", order=f"position DESC LIMIT {int(limit)}"))

    def state(self, identifier: str) -> JobState | None:
        """State of one job, without counting its blocks."""
        row = self._database.execute("SELECT state FROM jobs WHERE id = ?", (identifier,)).fetchone()
        return row[0] if row else None

    def ended(self) -> list[tuple[str, float]]:
        """Ids of the jobs that ended and when (seconds since the epoch), oldest end first."""
        cursor = self._database.execute(
            "SELECT id, ended FROM jobs WHERE ended IS NOT NULL ORDER BY ended, position"
        )
        return cursor.fetchall()

    def blocks(self, job: str, seq: int = 0, limit: int = -1) -> list[Block]:
        """Row blocks of a job from ``seq`` on."""
        cursor = self._database.execute(
            "SELECT seq, product, column_, row, width, height, offset, crc32 FROM blocks"
            " WHERE job = ? AND seq >= ? ORDER BY seq LIMIT ?",
            (job, seq, limit),
        )
        return [
            Block(seq=seq, product=product, window=(column, row, width, height), offset=offset, crc32=crc32)
            for seq, product, column, row, width, height, offset, crc32 in cursor
        ]

    def offsets(self, job: str) -> dict[str, int]:
        """Bytes journaled of each product of a job."""
        cursor = self._database.execute(
            "SELECT product, SUM(width * height) FROM blocks WHERE job = ? GROUP BY product", (job,)
        )
        return dict(cursor.fetchall())

    # --- the client's wishes ----------------------------------------------------------

    def submit(self, key: str, job: SegmentJob, abandon_seconds: int = 0) -> JobRecord:
        """Put a job in the queue, or find the one this key made before.

        Raises:
            InputError: ``E_CONFLICT``: the key was used for another job.
            ResourceError: ``E_DISK_FULL``, as every method that writes.
        """
        body = msgspec.json.encode(job, order="deterministic")
        with self._transaction():
            known = self.job_of_key(key)
            if known is None:
                self._database.execute(
                    "INSERT INTO jobs (id, key, job, state, abandon_seconds, submitted)"
                    " VALUES (?, ?, ?, 'queued', ?, ?)",
                    (secrets.token_hex(8), key, body, abandon_seconds, time.time()),
                )
                known = next(self._select("WHERE jobs.key = ?", key))
        if msgspec.json.encode(known.job, order="deterministic") != body:
            raise InputError("E_CONFLICT", f"The key {key} was already used for another job.")
        return known

    def ask_cancel(self, job: str, *, abandoned: bool = False) -> None:
        """Note that an unfinished job shall end, so that no restart runs it again."""
        with self._transaction():
            self._database.execute(
                "UPDATE jobs SET cancel = ? WHERE id = ? AND state IN ('queued', 'running')",
                (2 if abandoned else 1, job),
            )

    # --- the course of a job ------------------------------------------------------------

    def start(self, job: str, device: str = "") -> JobRecord:
        """The job leaves the queue: queued -> running."""
        return self._move(
            job, "running", "attempt_seq = next_seq, device = ?, started = ?", device, time.time()
        )

    def begun(self, job: str, window: Window, temporary_paths: Sequence[str]) -> None:
        """The worker knows the window and has opened its output."""
        with self._transaction():
            self._database.execute(
                "UPDATE jobs SET window = ?, temporary_paths = ? WHERE id = ? AND state = 'running'",
                (_json(window), _json(list(temporary_paths)), job),
            )

    def add_blocks(self, job: str, blocks: Sequence[Block]) -> None:
        """Record finished row blocks.

        Raises:
            sqlite3.IntegrityError: A sequence number is there already.
        """
        with self._transaction():
            self._database.executemany(
                "INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (job, block.seq, block.product, *block.window, block.offset, block.crc32)
                    for block in blocks
                ],
            )
            classes = sum(block.nbytes for block in blocks if block.product == CLASSES)
            self._database.execute(
                "UPDATE jobs SET next_seq = next_seq + ?, class_bytes = class_bytes + ? WHERE id = ?",
                (len(blocks), classes, job),
            )

    def drop_blocks(self, job: str, seq: int) -> None:
        """Forget the blocks from ``seq`` on: their bytes did not survive."""
        with self._transaction():
            self._database.execute("DELETE FROM blocks WHERE job = ? AND seq >= ?", (job, seq))
            self._database.execute(
                "UPDATE jobs SET next_seq = MIN(next_seq, ?), class_bytes = (SELECT"
                " COALESCE(SUM(width * height), 0) FROM blocks WHERE job = jobs.id AND product = ?)"
                " WHERE id = ?",
                (seq, CLASSES, job),
            )

    def finish(self, job: str, summary: dict[str, Any]) -> JobRecord:
        """The output is in place: running -> done."""
        assignments = "summary = ?, temporary_paths = '[]', ended = ?"
        return self._move(job, "done", assignments, _json(summary), time.time())

    def fail(self, job: str, code: str, message: str) -> JobRecord:
        """End without result: queued or running -> failed; its blocks are forgotten."""
        return self._end(job, "failed", code, message)

    def cancelled(self, job: str) -> JobRecord:
        """End as asked: queued or running -> cancelled; its blocks are forgotten."""
        row = self._database.execute(
            "SELECT abandon_seconds FROM jobs WHERE id = ? AND cancel = 2", (job,)
        ).fetchone()
        message = "The job was cancelled."
        if row:
            message = f"The job was cancelled: for {row[0]} seconds no client watched it."
        return self._end(job, "cancelled", "E_CANCELLED", message)

    def requeue(self, job: str, *, lost: bool, blamed: bool = True) -> JobRecord:
        """Back to the queue: running -> queued.

        Args:
            job: Its id.
            lost: The worker or the daemon died: the attempt counts.
            blamed: The job may be why: the third such attempt in a row without a new row makes
                it fail with ``E_WORKER_LOST``.
        """
        if not lost:
            return self._move(job, "queued", "temporary_paths = '[]'")
        with self._transaction():
            self._database.execute(
                "UPDATE jobs SET attempt = attempt + 1, barren = CASE"
                " WHEN next_seq > attempt_seq THEN 0 ELSE barren + ? END WHERE id = ?",
                (int(blamed), job),
            )
            (barren,) = self._database.execute("SELECT barren FROM jobs WHERE id = ?", (job,)).fetchone()
            if barren >= ATTEMPTS_WITHOUT_ROWS:
                return self._end(
                    job,
                    "failed",
                    "E_WORKER_LOST",
                    f"The process that computed this job died {ATTEMPTS_WITHOUT_ROWS} times without"
                    " a new row; its log tells more.",
                )
            return self._move(job, "queued", "temporary_paths = '[]'")

    def forget(self, job: str) -> None:
        """Remove a job that ended, with its blocks."""
        with self._transaction():
            self._database.execute("DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", (job,))

    # --- mechanics ------------------------------------------------------------------------

    def _end(self, job: str, state: JobState, code: str, message: str) -> JobRecord:
        with self._transaction():
            self.drop_blocks(job, 0)
            return self._move(
                job,
                state,
                "code = ?, message = ?, temporary_paths = '[]', ended = ?",
                code[:256],
                message[:4096],
                time.time(),
            )

    def _move(self, job: str, state: JobState, assignments: str, *values: object) -> JobRecord:
        allowed = [before for before, after in _NEXT.items() if state in after]
        places = ",".join("?" * len(allowed))
        with self._transaction():
            cursor = self._database.execute(
                f"UPDATE jobs SET state = ?, {assignments} WHERE id = ? AND state IN ({places})",
                (state, *values, job, *allowed),
            )
            record = self.job(job)
            if cursor.rowcount != 1 or record is None:
                raise IllegalMove(f"job {job}: {record.state if record else 'unknown'} -> {state}")
        return record

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._database.in_transaction:
            yield
            return
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except BaseException as error:
            if self._database.in_transaction:  # SQLite itself may have rolled it back
                self._database.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                free = shutil.disk_usage(self._folder).free
                raise ResourceError(
                    "E_DISK_FULL",
                    f"The disk of the engine's folder {self._folder} is full; {free:,} bytes are free."
                    " Make room, then run the job again.",
                ) from error
            raise

    def _select(self, where: str, *values: object, order: str = "position") -> Iterator[JobRecord]:
        cursor = self._database.execute(
            "SELECT position, id, key, job, state, attempt, cancel, window, temporary_paths, code, message,"
            " summary, abandon_seconds, device, next_seq, class_bytes, submitted, started, ended"
            f" FROM jobs {where} ORDER BY {order}",
            values,
        )
        for row in cursor.fetchall():
            yield JobRecord(
                position=row[0],
                id=row[1],
                key=row[2],
                job=msgspec.json.decode(row[3], type=SegmentJob),
                state=row[4],
                attempt=row[5],
                cancel=bool(row[6]),
                window=msgspec.json.decode(row[7], type=Window | None),
                temporary_paths=msgspec.json.decode(row[8], type=list[str]),
                code=row[9],
                message=row[10],
                summary=msgspec.json.decode(row[11]),
                abandon_seconds=row[12],
                device=row[13],
                next_seq=row[14],
                class_bytes=row[15],
                submitted=row[16],
                started=row[17],
                ended=row[18],
            )


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode("utf-8")
