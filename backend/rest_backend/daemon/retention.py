"""How long the rows of jobs that ended are kept."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from rest_backend.daemon.journal import Journal
from rest_backend.daemon.spool import remove_spool, spool_bytes

_log = logging.getLogger(__name__)

KEEP_SECONDS = 7 * 24 * 3600.0
KEEP_BYTES = 4 * 10**9  # rows of jobs that ended


def forget_old_jobs(journal: Journal, spool: Path, keep_bytes: int = KEEP_BYTES) -> None:
    """Forget jobs that ended long ago, and the oldest while the rows of ended jobs are too many.

    Args:
        journal: The open journal.
        spool: Folder of the jobs' spool folders.
        keep_bytes: Most bytes of rows, of all products; the last job's are kept whatever their size.
    """
    ended = journal.ended()
    sizes = {job: spool_bytes(spool / job) for job, _ in ended}
    kept = sum(sizes.values())
    newest = next((job for job, _ in reversed(ended) if sizes[job]), "")
    for job, when in ended:
        crowded = kept > keep_bytes and sizes[job] and job != newest
        if not crowded and time.time() - when <= KEEP_SECONDS:
            continue
        try:
            remove_spool(spool / job)
        except OSError as error:
            _log.error("the rows of job %s cannot be deleted: %s", job, error)
            continue
        kept -= sizes[job]
        journal.forget(job)
        _log.info("job %s and its %d bytes of rows are forgotten", job, sizes[job])
