"""Questions for plans and the one process that answers them, one at a time.

The process is started by the first question, outside the devices' workers, and ends when
nobody asked for a while, which gives its memory back. The broker never waits for it.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rest_backend.daemon import link
from rest_backend.daemon.supervisor import Gone, Supervisor
from rest_backend.wire.messages import Error, Message, Planned, SegmentJob

_log = logging.getLogger(__name__)

PLAN_SECONDS = 60.0  # for the start of the process, and for each plan
IDLE_SECONDS = 60.0
HEED_SECONDS = 3.0  # a plan nobody waits for may go on so long while somebody waits for another


@dataclass
class _Question:
    id: str
    peer: bytes
    request: str
    job: SegmentJob
    answered: bool = False  # nobody waits for it any more


class Planner:
    """The questions of all clients.

    Args:
        supervisor: Starts the process.
        send: Called with a client and the answer to its question.
        log_folder: Named in errors.
        plan_seconds: A plan may take this long.
        idle_seconds: The process ends after this long without a question.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        send: Callable[[bytes, Message], None],
        log_folder: Path,
        plan_seconds: float = PLAN_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._supervisor = supervisor
        self._send = send
        self._log = log_folder / "planner.log"
        self._plan_seconds = plan_seconds
        self._idle_seconds = idle_seconds
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, _Question] = {}  # one a client, oldest first
        self._current: _Question | None = None
        self._since = 0.0  # when the process was started, was given a question or answered one
        self._withdrawn = 0.0  # time.monotonic() when nobody waited for the plan under way any more
        self._ending = False  # it was told to end; it is started again if somebody asks

    def ask(self, peer: bytes, request: str, job: SegmentJob, now: float) -> None:
        """Take a question; it replaces the earlier ones of the same client.

        Args:
            peer: Who asks.
            request: Identifier of the question.
            job: What to plan, checked.
            now: ``time.monotonic()``.
        """
        self._withdraw(peer, "E_REPLACED", "A newer question took the place of this one.")
        self._waiting[peer] = _Question(str(next(self._numbers)), peer, request, job)
        if self._supervisor.planner is None:
            self._supervisor.start_planner()
            self._since, self._ending = now, False
        self._next(now)

    def leave(self, peer: bytes) -> None:
        """A client is gone, and its questions with it."""
        self._withdraw(peer)

    def clear(self) -> None:
        """Nobody is connected any more."""
        for peer in [*self._waiting, *([self._current.peer] if self._current else ())]:
            self._withdraw(peer)

    def handle(self, message: link.FromWorker | Gone, now: float) -> None:
        """One message of the planner's process."""
        current = self._current
        if isinstance(message, Gone):
            self._gone(now)
        elif isinstance(message, link.Ready):
            self._since = now
        elif current is not None and message.id == current.id:
            self._current, self._since = None, now
            if isinstance(message, link.Answered):
                self._answer(current, Planned(request=current.request, plan=message.plan))
            elif isinstance(message, link.Broken):
                self._refuse(current, message.code, message.message)
        self._next(now)

    def tick(self, now: float) -> None:
        """End a plan that takes too long, and a process nobody needs."""
        worker = self._supervisor.planner
        if worker is None:
            return
        passed = now - self._since
        if (self._current or self._waiting) and passed > self._plan_seconds:
            self._fail(f"The plan was given up after {self._plan_seconds:.0f} seconds.")
            self._replace(now)
        elif self._heedless(now):
            self._replace(now)
        elif not self._current and not self._waiting and not self._ending and passed > self._idle_seconds:
            _log.info("nobody plans; the planner ends")
            self._ending = True
            worker.hang_up()

    def _heedless(self, now: float) -> bool:
        """Whether a plan nobody waits for keeps others from being made: some steps ask no cancel."""
        unwanted = self._current is not None and self._current.answered and not self._ending
        return unwanted and bool(self._waiting) and now - self._withdrawn > HEED_SECONDS

    def _replace(self, now: float) -> None:
        worker = self._supervisor.planner
        if worker is not None:
            _log.warning("the planner takes too long and is replaced")
            self._since, self._ending = now, True
            worker.process.kill()

    def _next(self, now: float) -> None:
        worker = self._supervisor.planner
        if worker is None or not worker.ready or self._ending or self._current or not self._waiting:
            return
        question = self._waiting.pop(next(iter(self._waiting)))
        self._current, self._since = question, now
        worker.send(link.Ask(id=question.id, job=question.job))

    def _gone(self, now: float) -> None:
        if not self._ending:
            self._fail(f"The process that plans died; its log {self._log} tells more.")
        self._current, self._ending = None, False
        if self._waiting:
            self._supervisor.start_planner()
            self._since = now

    def _fail(self, sentence: str) -> None:
        """Refuse the question that is being answered; all, when the process never got to one."""
        questions = [self._current] if self._current else list(self._waiting.values())
        if not self._current:
            self._waiting.clear()
        self._current = None
        for question in questions:
            self._refuse(question, "E_PLAN_FAILED", sentence)

    def _withdraw(self, peer: bytes, code: str = "", sentence: str = "") -> None:
        waiting, current = self._waiting.pop(peer, None), self._current
        if current is not None and current.peer == peer and not current.answered:
            self._withdrawn = time.monotonic()
            if self._supervisor.planner is not None:
                self._supervisor.planner.send(link.Stop(id=current.id))
        else:
            current = None
        for question in (current, waiting):
            if question is None:
                continue
            if code:
                self._refuse(question, code, sentence)
            question.answered = True

    def _refuse(self, question: _Question, code: str, sentence: str) -> None:
        self._answer(question, Error(request=question.request, code=code[:256], message=sentence[:4096]))

    def _answer(self, question: _Question, message: Message) -> None:
        if not question.answered:
            question.answered = True
            self._send(question.peer, message)
