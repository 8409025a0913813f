"""A job as its user sees it: request, listener, state, result."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import ClientError
from .rows import Rows, RowStream

# "waiting" is the client's own: the daemon has not acknowledged the job yet.
STATES = ("waiting", "queued", "running", "done", "failed", "cancelled")


@dataclass(frozen=True)
class JobRequest:
    """What to segment. Paths are absolute paths of this computer.

    Attributes:
        scene: The raster.
        model: A model's id, or the path of a model card.
        output: The class map to be written, a GeoTIFF.
        window: Column, row, width and height in pixels of the scene; None is the whole scene.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        memory_bytes: Bound of the worker's resident memory; 0 lets the daemon decide.
        title: What lists of jobs call it.
        bands: Bands of the scene, from 1, in the model's order; empty: matched by what they show.
        aoi: Vector file; only what its polygons cover gets a class. Empty: no mask.
        resolution_m: Metres per pixel the network shall see; 0: the scene's own.
        context: ``scene``, or ``nearby`` for previews.
        confidence: Raster to write with the highest softmax of each pixel; empty: none.
        probabilities: Raster to write with the softmax of every class; empty: none.
        abandon_seconds: The daemon cancels the job when nobody watches it for so long; 0: never.
        manual_credit: Rows come only as ``Job.grant`` allows.
    """

    scene: str
    model: str
    output: str
    window: tuple[int, int, int, int] | None = None
    device: str = "auto"
    memory_bytes: int = 0
    title: str = ""
    bands: tuple[int, ...] = ()
    aoi: str = ""
    resolution_m: float = 0.0
    context: str = "scene"
    confidence: str = ""
    probabilities: str = ""
    abandon_seconds: int = 0
    manual_credit: bool = False


def new_key() -> str:
    """A name for a job to come; noted before the job is handed in, it leads back to the job."""
    return uuid.uuid4().hex


@dataclass(frozen=True)
class Progress:
    """How far a running job is.

    Attributes:
        stage: ``queued``, ``loading``, ``statistics``, ``planning``, ``sweep`` or ``writing``.
        rows_done: Finished rows.
        rows: All rows of the result.
        rows_per_second: Speed of the sweep.
        eta_seconds: Estimated seconds to the end, None while unknown.
        device: The device that computes.
        memory_bytes: Resident memory of the worker.
        note: Something the user should know, such as a scene without a CRS.
    """

    stage: str
    rows_done: int
    rows: int
    rows_per_second: float
    eta_seconds: float | None
    device: str
    memory_bytes: int
    note: str


@dataclass(frozen=True)
class Done:
    """The result is in place.

    Attributes:
        output: Path of the class map.
        summary: Numbers of the run, as ``rest-backend segment --json`` prints them.
        seq: Number of row blocks the result had.
    """

    output: str
    summary: dict[str, Any] = field(default_factory=dict)
    seq: int = 0


class JobListener:
    """What a job tells; override what you need.

    All methods are called on the client thread, one at a time, and must not wait
    for anything: nothing else of the engine moves until they return. An exception
    is logged and otherwise ignored. After ``done`` or ``failed`` nothing more comes.
    """

    def submitted(self, job: Job) -> None:
        """The job is in the daemon's journal and has an id; it will run even if QGIS ends."""

    def progress(self, job: Job, progress: Progress) -> None:
        """The job is running."""

    def rows(self, job: Job, rows: Rows) -> None:
        """Finished rows, of each product from the top and without a gap; a resumed job's from its first."""

    def done(self, job: Job, done: Done) -> None:
        """The result is in place, and all rows were delivered before."""

    def failed(self, job: Job, code: str, message: str) -> None:
        """The job ended without a result, by an error or (``E_CANCELLED``) by the user.

        ``E_CLIENT_CLOSED``: only the client ended; the daemon goes on with a job that was submitted.
        """


class Job:
    """One job; made by ``Engine.segment`` and ``Engine.resume``.

    Attributes:
        request: What was asked for; of a resumed job known with ``submitted``.
        key: The client's own identifier: the same key is never run twice. Of a resumed job
            known with ``submitted``.
        name: What a resumed job is looked for by, its key or its id; else empty.
        id: The daemon's identifier, empty until ``submitted``.
        state: One of ``STATES``.
        result: Set once ``done``.
        error: Set once failed or cancelled.
        stream: Sequence and credit of the rows; the client thread's own.
        listener: Who is told.
    """

    def __init__(
        self,
        request: JobRequest,
        listener: Any,
        cancel: Callable[[Job], None],
        grant: Callable[[Job, int], None],
        key: str = "",
        name: str = "",
    ) -> None:
        self.request = request
        self.listener = listener
        self.key = key
        self.name = name
        self.id = ""
        self.state = "waiting"
        self.result: Done | None = None
        self.error: ClientError | None = None
        self.stream = RowStream(request.manual_credit)
        self._cancel = cancel
        self._grant = grant
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether the job is done, failed or cancelled; true before the listener hears of it."""
        return self.state in ("done", "failed", "cancelled")

    def cancel(self) -> None:
        """Ask the daemon to end the job; ``failed`` with ``E_CANCELLED`` follows. Never waits."""
        self._cancel(self)

    def grant(self, blocks: int) -> None:
        """Allow the daemon to send that many row blocks more (``manual_credit`` only).

        Args:
            blocks: How many, at least 1.

        Raises:
            ValueError: ``blocks`` is less than 1, or the job grants by itself.
        """
        if blocks < 1 or not self.request.manual_credit:
            raise ValueError("grant() is for jobs with manual_credit and gives at least one block")
        self._grant(self, blocks)

    def finish(self, state: str, result: Done | None = None, error: ClientError | None = None) -> None:
        """Set the final state; the client thread's own."""
        self.result, self.error, self.state = result, error, state

    def release(self) -> None:
        """Let those who wait for the job go on; the client thread's own, after the listener heard."""
        self._ended.set()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the job ended and its listener was told; see ``Engine.wait``."""
        return self._ended.wait(timeout)
