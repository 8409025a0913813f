"""Records of the journal and messages of workers as the wire tells them."""

from __future__ import annotations

import msgspec

from rest_backend.daemon import link
from rest_backend.daemon.journal import JobRecord
from rest_backend.wire.messages import HEADER_LIMIT, Done, Failed, JobStatus, Progress

_ENVELOPE_BYTES = 128  # a request's identifier


def job_status(record: JobRecord) -> JobStatus:
    """Answer about one job; what one header has no room for is left out: the summary, then the job asked."""
    status = msgspec.structs.replace(brief_status(record), summary=record.summary, asked=record.job)
    if _bytes(status) > HEADER_LIMIT - _ENVELOPE_BYTES:
        status.summary = {}
    if _bytes(status) > HEADER_LIMIT - _ENVELOPE_BYTES:
        status.asked = None
    return status


def brief_status(record: JobRecord) -> JobStatus:
    """One line of a list of jobs."""
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
        key=record.key,
        title=record.job.title,
        device=record.device,
        submitted_at=record.submitted,
        started_at=record.started,
        ended_at=record.ended or 0.0,
    )


def ending(record: JobRecord) -> Done | Failed:
    """Last event of a job that ended."""
    if record.state == "done":
        return Done(job=record.id, seq=record.next_seq, output=record.job.output, summary=record.summary)
    return Failed(job=record.id, code=record.code, message=record.message)


def progress(message: link.Advanced) -> Progress:
    """Progress as a worker tells it."""
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


def _bytes(status: JobStatus) -> int:
    return len(msgspec.json.encode(status))
