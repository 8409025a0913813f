"""The backend's typed errors: a sentence a user understands and a stable code.

Every error the backend raises on purpose is a :class:`RestError`. The class
fixes the exit code of the command line, the ``code`` names the cause on the
wire, in the journal and in tests, and never changes once released.
"""

from __future__ import annotations

from typing import ClassVar


class RestError(Exception):
    """An expected failure, told to the user in one sentence.

    Attributes:
        code: Stable name of the cause, such as ``E_SCENE_MISSING``.
        message: One or two plain sentences: what is wrong, what to do.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class InputError(RestError):
    """Something the user gave cannot be used: a file, a model, an option."""

    exit_code = 2


class CancelledError(RestError):
    """The user ended the job; nothing of it is left behind."""

    exit_code = 3

    def __init__(self, message: str = "The job was cancelled.") -> None:
        super().__init__("E_CANCELLED", message)


class ResourceError(RestError):
    """Memory, disk or a device does not suffice; the message says what would."""

    exit_code = 4
