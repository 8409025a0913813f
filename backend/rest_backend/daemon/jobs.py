"""The course of every job: from the queue to a worker to its end.

The journal is told first, then the clients. Files are deleted before the journal
says that a job ended, so that a daemon killed in between finds them again.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rest_backend.daemon import link
from rest_backend.daemon.home import Home
from rest_backend.daemon.journal import JobRecord, Journal
from rest_backend.daemon.spool import ROWS_FILE, intact_blocks, remove_spool
from rest_backend.daemon.supervisor import Gone, Supervisor, Worker
from rest_backend.errors import InputError, ResourceError
from rest_backend.wire.messages import Done, Failed, JobStatus, Message, Progress, SegmentJob

_log = logging.getLogger(__name__)

CANCEL_SECONDS = 1.0  # a worker has this long to end a job itself; some stages ask no cancel
QUEUE_LIMIT = 512
KEEP_SECONDS = 7 * 24 * 3600.0
KEEP_BYTES = 4 * 10**9  # rows of jobs that ended
TIDY_SECONDS = 3600.0
_DEVICE = re.compile(r"auto|cpu|cuda:\d{1,3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Jobs:
    """Queue and running jobs of one daemon.

    Args:
        journal: The open journal.
        supervisor: The worker processes.
        home: Folders of the daemon.
        emit: Called with a job's id and an event for those who watch it.
        rows_ready: Called with a job's id when new row blocks are journaled.
        keep_bytes: Most bytes of rows of finished jobs; the last job's rows are kept whatever their size.
    """

    def __init__(
        self,
        journal: Journal,
        supervisor: Supervisor,
        home: Home,
        emit: Callable[[str, Message], None],
        rows_ready: Callable[[str], None],
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._journal = journal
        self._supervisor = supervisor
        self._home = home
        self._emit = emit
        self._rows_ready = rows_ready
        self._cancel_at: dict[str, float] = {}
        self._progress: dict[str, Progress] = {}
        self._keep_bytes = keep_bytes
        self._tidy_at = 0.0  # time.monotonic()
        self._schedule_needed = True
        self._stopping = False

    @property
    def unfinished(self) -> bool:
        """Whether any job is queued or running."""
        return bool(self._journal.jobs("queued", "running"))

    def rows_path(self, job: str) -> Path:
        """Spool file of a job."""
        return self._home.spool / job / ROWS_FILE

    # --- what clients ask for -------------------------------------------------------------

    def submit(self, key: str, job: SegmentJob) -> JobRecord:
        """Journal a job, or find the one of this key.

        Raises:
            InputError: ``E_KEY``, ``E_PATH``, ``E_WINDOW``, ``E_DEVICE``, ``E_CONFLICT``.
            ResourceError: ``E_BUSY``: the queue is full.
        """
        _check(key, job)
        if self._journal.job_of_key(key) is None and len(self._journal.jobs("queued")) >= QUEUE_LIMIT:
            raise ResourceError("E_BUSY", f"{QUEUE_LIMIT} jobs are waiting already; try again later.")
        record = self._journal.submit(key, job)
        if record.state == "queued":
            self._supervisor.retry()
            self._schedule_needed = True
        return record

    def note_cancel(self, job: str) -> JobRecord:
        """Journal that a job shall end; one that ended already stays as it is.

        Raises:
            InputError: ``E_UNKNOWN_JOB``.
        """
        if self.find(job).state in ("queued", "running"):
            self._journal.ask_cancel(job)
        return self.find(job)

    def cancel(self, record: JobRecord) -> None:
        """Begin to end an unfinished job; a queued one ends at once."""
        worker = self._worker_of(record.id)
        if worker is None:
            self._end_cancelled(record)
        elif record.id not in self._cancel_at:
            self._cancel_at[record.id] = time.monotonic() + CANCEL_SECONDS
            worker.send(link.Stop(id=record.id))

    def find(self, job: str) -> JobRecord:
        """A job of the journal.

        Raises:
            InputError: ``E_UNKNOWN_JOB``.
        """
        record = self._journal.job(job)
        if record is None:
            raise InputError("E_UNKNOWN_JOB", f"The engine knows no job {job!r}.")
        return record

    def latest_event(self, record: JobRecord) -> Message | None:
        """What somebody who begins to watch a job has missed: its end, or its last progress."""
        if record.state == "done":
            return _done(record)
        if record.state in ("failed", "cancelled"):
            return Failed(job=record.id, code=record.code, message=record.message)
        return self._progress.get(record.id)

    # --- what happens -----------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what an earlier daemon left: once, at start."""
        known = {record.id for record in self._journal.jobs()}
        for folder in self._home.spool.iterdir():
            if folder.is_dir() and folder.name not in known:
                remove_spool(folder)
        for record in self._journal.jobs("running", "queued"):
            if record.cancel:
                self._end_cancelled(record)
                continue
            if record.state == "running":
                _log.warning("job %s was running when the daemon was lost", record.id)
                self._back_to_queue(record, lost=True)
            if record.next_seq:
                intact = intact_blocks(self.rows_path(record.id), self._journal.blocks(record.id))
                if intact < record.next_seq:
                    _log.warning("job %s: %d of %d blocks survived", record.id, intact, record.next_seq)
                    self._journal.drop_blocks(record.id, intact)

    def handle(self, worker: Worker, message: link.FromWorker | Gone) -> None:
        """One message of a worker."""
        if isinstance(message, link.Ready):
            self._schedule_needed = True
        elif isinstance(message, Gone):
            self._schedule_needed = True
            if worker.job:
                self._lost(worker)
        elif message.id != worker.job:
            return
        elif isinstance(message, link.Begun):
            self._journal.begun(message.id, message.window, message.temporary_paths)
        elif isinstance(message, link.Spooled):
            self._journal.add_blocks(message.id, message.blocks)
            self._rows_ready(message.id)
        elif isinstance(message, link.Advanced):
            self._tell_progress(_progress(message))
        else:
            self._ended(worker, message)

    def tick(self, now: float) -> None:
        """End workers that do not heed a cancel; give idle ones work; delete old rows."""
        for job, deadline in list(self._cancel_at.items()):
            if now >= deadline:
                worker = self._worker_of(job)
                if worker is not None:
                    _log.warning("job %s heeds no cancel; worker %d is killed", job, worker.process.pid)
                    worker.process.kill()
                del self._cancel_at[job]
        if self._schedule_needed and not self._stopping:
            self._schedule_needed = False
            self._schedule()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            self._forget_old()

    def urgent(self) -> bool:
        """Whether a cancel waits for its deadline."""
        return bool(self._cancel_at)

    def wind_down(self) -> None:
        """End the workers; running jobs go back to the queue for the next start."""
        self._stopping = True
        for worker, message in self._supervisor.stop():
            self.handle(worker, message)

    # --- mechanics ----------------------------------------------------------------------------

    def _schedule(self) -> None:
        queued = self._journal.jobs("queued")
        if not queued:
            return
        if self._supervisor.devices_known:
            there = {slot.device.id for slot in self._supervisor.slots}
            for record in queued:
                if record.job.device not in ("auto", "cpu") and record.job.device not in there:
                    offer = ", ".join(sorted(there))
                    message = f"There is no device {record.job.device}; this computer has {offer}."
                    self._fail(record, "E_DEVICE", message)
            queued = self._journal.jobs("queued")
        for record in queued:
            self._fail_without_worker(record)
        queued = self._journal.jobs("queued")
        for worker in self._supervisor.idle():
            own = worker.slot.device.id
            fitting = (record for record in queued if record.job.device in ("auto", "cpu", own))
            first = next(fitting, None)
            if first is not None:
                queued.remove(first)
                self._run(worker, first, own if first.job.device == "auto" else first.job.device)

    def _fail_without_worker(self, record: JobRecord) -> None:
        """Fail a job when every worker that could take it was given up."""
        slots = self._supervisor.slots
        if record.job.device not in ("auto", "cpu") and self._supervisor.devices_known:
            slots = tuple(slot for slot in slots if slot.device.id == record.job.device)
        if not all(slot.down for slot in slots):
            return
        device = f" on {slots[0].device.id}" if slots[0].device.id else ""
        log = self._home.log / f"worker-{slots[0].number}.err"
        self._fail(record, "E_WORKER_START", f"The process that computes{device} does not start; see {log}.")

    def _run(self, worker: Worker, record: JobRecord, device: str) -> None:
        record = self._journal.start(record.id)
        worker.job = record.id
        _log.info("job %s runs on %s, attempt %d", record.id, device, record.attempt)
        worker.send(
            link.Run(
                id=record.id,
                job=record.job,
                device=device,
                spool=str(self.rows_path(record.id)),
                next_seq=record.next_seq,
                offset=record.spooled,
                window=record.window if record.next_seq else None,
            )
        )
        self._tell_progress(
            Progress(job=record.id, stage="loading", rows_done=0, rows=record.rows, device=device)
        )

    def _ended(self, worker: Worker, message: link.Finished | link.Broken) -> None:
        record = self.find(message.id)
        worker.job = ""
        self._cancel_at.pop(record.id, None)
        self._schedule_needed = True
        if isinstance(message, link.Finished):
            # A cancel that came too late changes nothing: the output is in place.
            record = self._journal.finish(record.id, message.summary)
            self._progress.pop(record.id, None)
            self._tidy_at = 0.0
            _log.info("job %s is done", record.id)
            self._emit(record.id, _done(record))
        elif record.cancel:
            self._end_cancelled(record)
        elif message.code == "E_CANCELLED":
            self._back_to_queue(record, lost=False)  # the daemon ends, nobody cancelled the job
        else:
            self._fail(record, message.code, message.message)

    def _lost(self, worker: Worker) -> None:
        record = self.find(worker.job)
        worker.job = ""
        self._cancel_at.pop(record.id, None)
        if record.cancel:
            self._end_cancelled(record)
        else:
            self._back_to_queue(record, lost=not self._stopping)

    def _back_to_queue(self, record: JobRecord, *, lost: bool) -> None:
        self._remove_temporary(record)
        record = self._journal.requeue(record.id, lost=lost)
        if record.state == "failed":
            self._remove_files(record)
            self._emit(record.id, Failed(job=record.id, code=record.code, message=record.message))
            return
        self._schedule_needed = True
        note = "The process that computed this job was lost; it starts again." if lost else ""
        self._tell_progress(
            Progress(job=record.id, stage="queued", rows_done=record.rows_done, rows=record.rows, note=note)
        )

    def _end_cancelled(self, record: JobRecord) -> None:
        self._remove_files(record)
        record = self._journal.cancelled(record.id)
        _log.info("job %s is cancelled", record.id)
        self._emit(record.id, Failed(job=record.id, code=record.code, message=record.message))

    def _fail(self, record: JobRecord, code: str, message: str) -> None:
        self._remove_files(record)
        record = self._journal.fail(record.id, code, message)
        _log.warning("job %s failed: %s %r", record.id, record.code, record.message)
        self._emit(record.id, Failed(job=record.id, code=record.code, message=record.message))

    def _remove_files(self, record: JobRecord) -> None:
        self._progress.pop(record.id, None)
        self._remove_temporary(record)
        try:
            remove_spool(self._home.spool / record.id)
        except OSError as error:
            _log.error("the rows of job %s cannot be deleted: %s", record.id, error)

    def _remove_temporary(self, record: JobRecord) -> None:
        for name in record.temporary_paths:
            try:
                Path(name).unlink(missing_ok=True)
            except OSError as error:
                _log.error("the temporary file %r cannot be deleted: %s", name, error)

    def _tell_progress(self, progress: Progress) -> None:
        self._progress[progress.job] = progress
        self._emit(progress.job, progress)

    def _worker_of(self, job: str) -> Worker | None:
        return next((worker for worker in self._supervisor.live() if worker.job == job), None)

    def _forget_old(self) -> None:
        """Forget jobs that ended long ago, and the oldest while the rows of ended jobs are too many."""
        ended = self._journal.ended()
        sizes = {job: _size(self.rows_path(job)) for job, _ in ended}
        kept = sum(sizes.values())
        newest = next((job for job, _ in reversed(ended) if sizes[job]), "")
        for job, when in ended:
            crowded = kept > self._keep_bytes and sizes[job] and job != newest
            if not crowded and time.time() - when <= KEEP_SECONDS:
                continue
            try:
                remove_spool(self._home.spool / job)
            except OSError as error:
                _log.error("the rows of job %s cannot be deleted: %s", job, error)
                continue
            kept -= sizes[job]
            self._journal.forget(job)
            _log.info("job %s and its %d bytes of rows are forgotten", job, sizes[job])


def job_status(record: JobRecord, *, with_summary: bool = True) -> JobStatus:
    """A job as the wire tells it."""
    summary: dict[str, Any] = record.summary if with_summary else {}
    return JobStatus(
        job=record.id,
        state=record.state,
        scene=record.job.scene,
        model=record.job.model,
        output=record.job.output,
        window=record.window,
        rows_done=record.rows_done,
        rows=record.rows,
        next_seq=record.next_seq,
        attempt=record.attempt,
        code=record.code,
        message=record.message,
        summary=summary,
    )


def _size(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _done(record: JobRecord) -> Done:
    return Done(job=record.id, seq=record.next_seq, output=record.job.output, summary=record.summary)


def _progress(message: link.Advanced) -> Progress:
    return Progress(
        job=message.id,
        stage=message.stage,
        rows_done=message.rows_done,
        rows=message.rows,
        rows_per_second=message.rows_per_second,
        eta_seconds=message.eta_seconds,
        device=message.device,
        memory_bytes=message.memory_bytes,
        note=message.note,
    )


def _check(key: str, job: SegmentJob) -> None:
    if not key:
        raise InputError("E_KEY", "A job needs a key, so that sending it twice does not run it twice.")
    for name, text in (("scene", job.scene), ("model", job.model), ("output", job.output)):
        if not text or _CONTROL.search(text) or len(text.encode("utf-8")) > 4096:
            reason = "is empty, too long or holds control characters"
            raise InputError("E_PATH", f"The {name} {text[:80]!r} {reason}.")
        if name != "model" and not Path(text).is_absolute():
            raise InputError("E_PATH", f"The {name} {text[:80]!r} is no absolute path.")
    if job.window is not None and not (job.window[2] and job.window[3]):
        raise InputError("E_WINDOW", "The area has no pixels.")
    if not _DEVICE.fullmatch(job.device):
        raise InputError("E_DEVICE", f"The device {job.device[:80]!r} is none of auto, cpu, cuda:N.")
