"""The course of every job: from the queue to a worker to its end.

The journal is told first, then the clients. Files are deleted before the journal
says that a job ended, so that a daemon killed in between finds them again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from rest_backend.daemon import link
from rest_backend.daemon.abandon import Abandonment
from rest_backend.daemon.answers import ending, progress
from rest_backend.daemon.home import Home
from rest_backend.daemon.inbox import Inbox
from rest_backend.daemon.journal import JobRecord, Journal
from rest_backend.daemon.retention import KEEP_BYTES, forget_old_jobs
from rest_backend.daemon.spool import intact_blocks, remove_spool
from rest_backend.daemon.supervisor import Gone, Supervisor, Worker
from rest_backend.errors import InputError, ResourceError
from rest_backend.wire.messages import Message, Progress, SegmentJob

_log = logging.getLogger(__name__)

CANCEL_SECONDS = 1.0  # a worker has this long to end a job itself; some stages ask no cancel
QUEUE_LIMIT = 512
TIDY_SECONDS = 3600.0
FULL_DISK_SECONDS = 2.0  # between two attempts to go on


class Jobs:
    """Queue and running jobs of one daemon.

    Args:
        journal: The open journal.
        supervisor: The worker processes.
        home: Folders of the daemon.
        emit: Called with a job's id and an event for those who watch it.
        rows_ready: Called with a job's id when new row blocks are journaled.
        watched: Whether any client watches the job of an id.
        keep_bytes: Most bytes of rows of finished jobs; the last job's rows are kept whatever their size.
    """

    def __init__(
        self,
        journal: Journal,
        supervisor: Supervisor,
        home: Home,
        emit: Callable[[str, Message], None],
        rows_ready: Callable[[str], None],
        watched: Callable[[str], bool],
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self._journal = journal
        self._supervisor = supervisor
        self._home = home
        self._emit = emit
        self._rows_ready = rows_ready
        self._abandonment = Abandonment(watched)
        self._inbox = Inbox(home.inbox)
        self._cancel_at: dict[str, float] = {}
        self._unkept: dict[str, ResourceError] = {}  # jobs to fail, once the journal can be written
        self._progress: dict[str, Progress] = {}
        self._keep_bytes = keep_bytes
        self._tidy_at = 0.0  # time.monotonic()
        self._blocked_until = 0.0  # likewise
        self._schedule_needed = True
        self._stopping = False

    @property
    def unfinished(self) -> bool:
        """Whether any job is queued or running."""
        return bool(self._journal.jobs("queued", "running"))

    def spool_folder(self, job: str) -> Path:
        """Where the rows of a job lie."""
        return self._home.spool / job

    # --- what clients ask for -------------------------------------------------------------

    def submit(self, key: str, job: SegmentJob, abandon_seconds: int = 0) -> JobRecord:
        """Journal a job, or find the one of this key.

        Args:
            key: The client's, checked.
            job: What to do, checked.
            abandon_seconds: Cancel it when no client watches it for so long; 0: never.

        Raises:
            InputError: ``E_CONFLICT``.
            ResourceError: ``E_BUSY``: the queue is full; ``E_DISK_FULL``.
        """
        if self._journal.job_of_key(key) is None and len(self._journal.jobs("queued")) >= QUEUE_LIMIT:
            raise ResourceError("E_BUSY", f"{QUEUE_LIMIT} jobs are waiting already; try again later.")
        record = self._journal.submit(key, job, abandon_seconds)
        if record.state in ("queued", "running"):
            self._abandonment.follow(record)
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
        return _known(self._journal.job(job), f"job {job!r}")

    def find_key(self, key: str) -> JobRecord:
        """The job a client's key made.

        Raises:
            InputError: ``E_UNKNOWN_JOB``.
        """
        return _known(self._journal.job_of_key(key), f"job with the key {key!r}")

    def delete(self, job: str) -> None:
        """Forget a job that ended, and its rows; what it wrote stays.

        Raises:
            InputError: ``E_UNKNOWN_JOB``, ``E_JOB_RUNNING``.
            ResourceError: ``E_SPOOL``: its rows cannot be deleted; it is not forgotten.
        """
        record = self.find(job)
        if record.state in ("queued", "running"):
            raise InputError("E_JOB_RUNNING", "The job has not ended; cancel it before it is deleted.")
        try:
            remove_spool(self.spool_folder(job))
        except OSError as error:
            raise ResourceError("E_SPOOL", f"The job's rows cannot be deleted: {error}") from error
        self._journal.forget(job)
        _log.info("job %s is deleted", job)

    def latest_event(self, record: JobRecord) -> Message | None:
        """What somebody who begins to watch a job has missed: its end, or its last progress."""
        if record.state in ("queued", "running"):
            return self._progress.get(record.id)
        return ending(record)

    # --- what happens -----------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what an earlier daemon left: once, at start."""
        known = {record.id for record in self._journal.jobs()}
        for folder in self._home.spool.iterdir():
            if folder.is_dir() and folder.name not in known:
                self._remove_spool(folder.name)
        for record in self._journal.jobs("running", "queued"):
            if record.cancel:
                self._end_cancelled(record)
                continue
            self._abandonment.follow(record)
            if record.state == "running":
                _log.warning("job %s was running when the daemon was lost", record.id)
                self._back_to_queue(record, lost=True, blamed=False)
            if record.next_seq:
                intact = intact_blocks(self.spool_folder(record.id), self._journal.blocks(record.id))
                if intact < record.next_seq:
                    _log.warning("job %s: %d of %d blocks survived", record.id, intact, record.next_seq)
                    self._journal.drop_blocks(record.id, intact)

    def handle(self, worker: Worker, message: link.FromWorker | Gone) -> None:
        """One message of a worker; where the journal cannot keep it, its job fails."""
        job = worker.job
        try:
            self._handle(worker, message)
        except ResourceError as error:
            worker.process.kill()
            worker.job = ""
            self._cancel_at.pop(job, None)
            self._unkept[job] = error
            self._fail_unkept()

    def tick(self, now: float) -> None:
        """End workers that do not heed a cancel; give idle ones work; delete what is old or abandoned."""
        self._kill_deaf(now)
        if now < self._blocked_until:
            return
        try:
            self._go_on(now)
        except ResourceError as error:  # the journal's disk is full: what is queued waits
            _log.error("%s", error.message)
            self._schedule_needed = True
            self._blocked_until = now + FULL_DISK_SECONDS

    def urgent(self) -> bool:
        """Whether a cancel waits for its deadline."""
        return bool(self._cancel_at)

    def wind_down(self) -> None:
        """End the workers; running jobs go back to the queue for the next start."""
        self._stopping = True
        for worker, message in self._supervisor.stop():
            self.handle(worker, message)

    # --- mechanics ----------------------------------------------------------------------------

    def _kill_deaf(self, now: float) -> None:
        for job, deadline in list(self._cancel_at.items()):
            if now >= deadline:
                worker = self._worker_of(job)
                if worker is not None:
                    _log.warning("job %s heeds no cancel; worker %d is killed", job, worker.process.pid)
                    worker.process.kill()
                del self._cancel_at[job]

    def _go_on(self, now: float) -> None:
        self._fail_unkept()
        for job in self._abandonment.due(now):
            _log.info("nobody watches job %s any more", job)
            self._journal.ask_cancel(job, abandoned=True)
            self.cancel(self.find(job))
        if self._schedule_needed and not self._stopping:
            self._schedule_needed = False
            self._schedule()
        if now >= self._tidy_at:
            self._tidy_at = now + TIDY_SECONDS
            forget_old_jobs(self._journal, self._home.spool, self._keep_bytes)
            self._inbox.sweep({record.key for record in self._journal.jobs("queued", "running")})

    def _fail_unkept(self) -> None:
        for job, error in list(self._unkept.items()):
            record = self._journal.job(job)
            if record is not None and record.ended is None:  # else it was cancelled meanwhile
                self._fail(record, error.code, error.message)
            del self._unkept[job]

    def _handle(self, worker: Worker, message: link.FromWorker | Gone) -> None:
        if isinstance(message, link.Ready):
            self._schedule_needed = True
        elif isinstance(message, Gone):
            self._schedule_needed = True
            if worker.job:
                self._lost(worker)
        elif isinstance(message, link.Answered) or message.id != worker.job:
            return
        elif isinstance(message, link.Begun):
            self._journal.begun(message.id, message.window, message.temporary_paths)
        elif isinstance(message, link.Spooled):
            self._journal.add_blocks(message.id, message.blocks)
            self._rows_ready(message.id)
        elif isinstance(message, link.Advanced):
            self._tell_progress(progress(message))
        else:
            self._ended(worker, message)

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
        log = self._home.log / f"{slots[0].name}.err"
        self._fail(record, "E_WORKER_START", f"The process that computes{device} does not start; see {log}.")

    def _run(self, worker: Worker, record: JobRecord, device: str) -> None:
        record = self._journal.start(record.id, device)
        worker.job = record.id
        _log.info("job %s runs on %s, attempt %d", record.id, device, record.attempt)
        worker.send(
            link.Run(
                id=record.id,
                job=record.job,
                device=device,
                spool=str(self.spool_folder(record.id)),
                next_seq=record.next_seq,
                offsets=self._journal.offsets(record.id),
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
            self._tidy_at = 0.0
            _log.info("job %s is done", record.id)
            self._tell_end(record)
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

    def _back_to_queue(self, record: JobRecord, *, lost: bool, blamed: bool = True) -> None:
        self._remove_temporary(record)
        record = self._journal.requeue(record.id, lost=lost, blamed=blamed)
        if record.state == "failed":
            self._remove_spool(record.id)
            self._tell_end(record)
            return
        self._schedule_needed = True
        note = "The process that computed this job was lost; it starts again." if lost else ""
        self._tell_progress(
            Progress(job=record.id, stage="queued", rows_done=record.rows_done, rows=record.rows, note=note)
        )

    def _end_cancelled(self, record: JobRecord) -> None:
        self._remove_temporary(record)
        self._remove_spool(record.id)
        record = self._journal.cancelled(record.id)
        _log.info("job %s is cancelled", record.id)
        self._tell_end(record)

    def _fail(self, record: JobRecord, code: str, message: str) -> None:
        self._remove_temporary(record)
        self._remove_spool(record.id)
        record = self._journal.fail(record.id, code, message)
        _log.warning("job %s failed: %s %r", record.id, record.code, record.message)
        self._tell_end(record)

    def _tell_end(self, record: JobRecord) -> None:
        """The journal says that the job ended: its client's files go, then all who watch it hear so."""
        self._progress.pop(record.id, None)
        self._abandonment.forget(record.id)
        self._inbox.remove(record.key)
        self._emit(record.id, ending(record))

    def _remove_spool(self, job: str) -> None:
        try:
            remove_spool(self.spool_folder(job))
        except OSError as error:
            _log.error("the rows of job %s cannot be deleted: %s", job, error)

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


def _known(record: JobRecord | None, asked: str) -> JobRecord:
    if record is None:
        raise InputError("E_UNKNOWN_JOB", f"The engine knows no {asked}.")
    return record
