"""Questions to the daemon: asked once there is a link, and again on the next link until answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .callbacks import tell
from .errors import ClientError

ANSWER_SECONDS = 30.0  # for the answer to a question on a link that works
PLAN_SECONDS = 300.0  # a plan loads and captures a network that may be large


@dataclass(frozen=True, eq=False)
class Question:
    """A question to the daemon. All of them may be asked twice: what is done stays done.

    Attributes:
        kind: Message type.
        callback: Told ``(answer, None)`` or ``(None, ClientError)`` on the client thread.
        launch: Whether the daemon is started for it.
        fields: The message's other fields.
        seconds: How long its answer may take, once sent.
        replaces: Whether it takes the place of those of its kind that are not answered yet.
    """

    kind: str
    callback: Callable[[dict[str, Any] | None, ClientError | None], None]
    launch: bool
    fields: dict[str, Any] = field(default_factory=dict)
    seconds: float = ANSWER_SECONDS
    replaces: bool = False


class Questions:
    """The open questions of a client, driven by its thread.

    Args:
        send: Sends a message on ``control``: type and fields; returns the request identifier.
    """

    def __init__(self, send: Callable[..., str]) -> None:
        self._send = send
        self._waiting: list[Question] = []
        self._sent: dict[str, tuple[Question, float]] = {}  # by request, with the time it was sent

    @property
    def open(self) -> bool:
        """Whether someone waits for an answer."""
        return bool(self._waiting or self._sent)

    @property
    def launch(self) -> bool:
        """Whether one of those that wait is worth starting the daemon."""
        return any(question.launch for question in self._waiting)

    @property
    def shutting_down(self) -> bool:
        """Whether the daemon was asked to end."""
        return any(question.kind == "shutdown" for question, _ in self._sent.values())

    def add(self, question: Question) -> None:
        """Take a question; :meth:`flush` sends it."""
        if question.replaces:
            self._replace(question.kind)
        self._waiting.append(question)

    def flush(self) -> None:
        """There is a link: send what waits."""
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            self._sent[self._send(question.kind, **question.fields)] = (question, time.monotonic())

    def take(self, message: dict[str, Any]) -> bool:
        """Hand a message to whoever asked for it; False when it answers no question."""
        question, _ = self._sent.pop(message.get("request", ""), (None, 0.0))
        if question is None:
            return False
        if message["type"] == "error":
            tell(question.callback, None, ClientError(message["code"], message["message"]))
        else:
            tell(question.callback, message, None)
        return True

    def tick(self, now: float) -> None:
        """Give up those that wait for too long.

        Args:
            now: ``time.monotonic()``.
        """
        for request, (question, sent) in list(self._sent.items()):
            if now > sent + question.seconds:
                del self._sent[request]
                late = ClientError("E_ENGINE_SILENT", "The engine did not answer a request in time.")
                tell(question.callback, None, late)

    def link_down(self) -> None:
        """The link is gone: what was sent is asked again; a shutdown is done when the process is gone."""
        sent, self._sent = self._sent, {}
        again = []
        for request, (question, when) in sent.items():
            if question.kind == "shutdown":
                self._sent[request] = (question, when)
            else:
                again.append(question)
        self._waiting = again + self._waiting

    def refuse(self, error: ClientError) -> None:
        """Answer all that wait with an error."""
        waiting, self._waiting = self._waiting, []
        for question in waiting:
            # Nothing that runs is what a shutdown wants.
            gone = question.kind == "shutdown" and error.code == "E_ENGINE_STOPPED"
            tell(question.callback, None, None if gone else error)

    def ended(self, error: ClientError | None) -> None:
        """The process is gone, or will not go: answer those that asked for its end."""
        sent, self._sent = self._sent, {}
        for question, _ in sent.values():
            tell(question.callback, None, error)

    def _replace(self, kind: str) -> None:
        older = [question for question in self._waiting if question.kind == kind]
        older += [question for question, _ in self._sent.values() if question.kind == kind]
        self._waiting = [question for question in self._waiting if question not in older]
        self._sent = {name: entry for name, entry in self._sent.items() if entry[0] not in older}
        for question in older:
            tell(question.callback, None, ClientError("E_REPLACED", "A newer question took its place."))
