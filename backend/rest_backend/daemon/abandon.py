"""Jobs that end when nobody watches them, for clients that may vanish, such as ``qgis_process``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rest_backend.daemon.journal import JobRecord


class Abandonment:
    """How long each job that minds has not been watched.

    The clock is the caller's. It starts when a job is first looked at, so anew after a
    restart of the daemon, and whenever the last watcher leaves.

    Args:
        watched: Whether any client watches the job of an id.
    """

    def __init__(self, watched: Callable[[str], bool]) -> None:
        self._watched = watched
        self._limits: dict[str, int] = {}  # seconds, by job
        self._alone_since: dict[str, float] = {}

    def follow(self, record: JobRecord) -> None:
        """Look after an unfinished job, if it minds."""
        if record.abandon_seconds:
            self._limits[record.id] = record.abandon_seconds

    def forget(self, job: str) -> None:
        """The job ends or ended."""
        self._limits.pop(job, None)
        self._alone_since.pop(job, None)

    def due(self, now: float) -> Iterator[str]:
        """Jobs that nobody watched for too long; each is told once.

        Args:
            now: ``time.monotonic()``.
        """
        for job, limit in list(self._limits.items()):
            if self._watched(job):
                self._alone_since.pop(job, None)
            elif now - self._alone_since.setdefault(job, now) >= limit:
                yield job
                self.forget(job)  # not where its cancel could not be noted: it is told again
