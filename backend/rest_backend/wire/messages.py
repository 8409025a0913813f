"""Messages of protocol 1, the one definition both sides follow.

A message on a socket is two or three ZeroMQ frames::

    b"REST1" | JSON header, at most 64 KiB | binary payload (``rows`` only)

The header is one of the structs below; its ``type`` field is the struct's tag.
Unknown fields are ignored and new fields always have defaults, so a daemon
speaks with older and newer clients of the same protocol number. The plugin
checks what it receives against ``rest_qgis/client/messages.schema.json``, which
``python -m rest_backend.wire.schema`` writes from this module.

Two sockets, both ROUTER on 127.0.0.1 with CURVE; the client uses one DEALER each:

* **control**: hello, models, plan, submit, status, watch, cancel, delete, shutdown and
  their answers; and, for jobs this client submitted or asked to ``watch``, the events
  ``progress``, ``done`` and ``failed``.
* **data**: ``attach`` and ``credit`` from the client; ``rows`` from the daemon,
  never more than the credit granted.

Every request carries ``request``, an identifier chosen by the client; its answer
carries the same one. Events carry an empty ``request``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

PROTOCOL = 1
MAGIC = b"REST1"
HEADER_LIMIT = 64 * 1024  # bytes
PAYLOAD_LIMIT = 1024 * 1024  # bytes, before and after compression
CREDIT_LIMIT = 32  # row blocks in flight per attachment

# ``$`` alone would let a trailing newline pass in Python.
Identifier = Annotated[str, msgspec.Meta(max_length=64, pattern=r"^[A-Za-z0-9_.\-]*$(?!\n)")]
ShortText = Annotated[str, msgspec.Meta(max_length=256)]
LongText = Annotated[str, msgspec.Meta(max_length=4096)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Window = tuple[Count, Count, Count, Count]  # column, row, width, height in pixels
BandNumbers = Annotated[list[Annotated[int, msgspec.Meta(ge=1, le=65536)]], msgspec.Meta(max_length=1024)]

JobState = Literal["queued", "running", "done", "failed", "cancelled"]


class Message(msgspec.Struct, kw_only=True, tag_field="type", forbid_unknown_fields=False):
    """Base of every message."""

    request: Identifier = ""


# --- session -----------------------------------------------------------------


class Hello(Message, tag="hello"):
    """First message on control: who the client is and which protocols it speaks."""

    protocols: tuple[Count, Count]  # lowest and highest
    client: ShortText
    version: ShortText


class Welcome(Message, tag="welcome"):
    """Answer to ``hello``. A new ``boot`` tells the client the daemon restarted."""

    protocol: Count
    version: ShortText
    boot: Identifier


class Goodbye(Message, tag="goodbye"):
    """The daemon ends the session: wrong protocol, or it shuts down."""

    code: ShortText
    message: LongText
    supported: tuple[Count, Count] = (PROTOCOL, PROTOCOL)


class Error(Message, tag="error"):
    """A request was refused; the link stays up."""

    code: ShortText
    message: LongText
    job: Identifier = ""


# --- models and daemon ---------------------------------------------------------


class ListModels(Message, tag="list_models"):
    """Ask for the installed models."""


class Models(Message, tag="models"):
    """Answer: short summaries of the models, bundled first, as many as one header holds.

    ``rest-backend models --json`` prints all of them, with everything their cards say.
    """

    models: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=256)]
    left_out: Count = 0  # installed models this answer has no room for; their ids and paths work in jobs


class Device(msgspec.Struct, kw_only=True):
    """One compute device and its worker."""

    id: ShortText  # "cpu", "cuda:0"
    name: ShortText
    worker: Literal["starting", "idle", "busy", "down"]
    memory_bytes: Count = 0


class DaemonStatus(Message, tag="daemon_status"):
    """Answer to ``status`` without a job."""

    version: ShortText
    boot: Identifier
    pid: Count
    uptime_seconds: Seconds
    devices: list[Device]
    jobs: list[JobStatus]  # unfinished first, then the latest, as many as one header holds
    dropped: Count = 0  # messages that were not understood since the daemon started


class Shutdown(Message, tag="shutdown"):
    """End the daemon; running jobs go back to the queue of its journal. Answer: ``goodbye``."""


# --- jobs ------------------------------------------------------------------------


class SegmentJob(msgspec.Struct, kw_only=True):
    """What to segment. Paths are absolute paths of this computer.

    Files of a client's own making (a copy of a layer that is no file, an area) lie in
    ``REST_HOME/inbox/KEY`` of the job's key; the daemon deletes that folder when the job ends.
    """

    scene: LongText
    model: LongText  # model id, or path of a card
    output: LongText
    window: Window | None = None  # pixels of the scene; None is the whole scene
    device: ShortText = "auto"  # auto, cpu, cuda:N
    memory_bytes: Count = 0  # 0: the daemon decides
    title: ShortText = ""  # what lists of jobs call it
    bands: BandNumbers = []  # of the scene, from 1, in the model's order; empty: matched by what they show
    aoi: LongText = ""  # vector file: only what its polygons cover gets a class
    resolution_m: Seconds = 0.0  # metres per pixel the network shall see; 0: the scene's own
    context: Literal["scene", "nearby"] = "scene"  # what pixels of an area may see; nearby is for previews
    confidence: LongText = ""  # raster to write with the highest softmax of each pixel; empty: none
    probabilities: LongText = ""  # raster to write with the softmax of every class; empty: none


class Submit(Message, tag="submit"):
    """Queue a job. The same ``key`` with the same job gives the same job id again."""

    key: Identifier
    job: SegmentJob
    abandon_seconds: Count = 0  # cancel it when no client watches it for so long; 0: never


class Submitted(Message, tag="submitted"):
    """The job is in the journal: it will run even if the daemon is killed now."""

    job: Identifier
    key: Identifier
    state: JobState


class Status(Message, tag="status"):
    """Ask for one job (answer ``job_status``) or, with no job, for the daemon."""

    job: Identifier = ""


class JobStatus(Message, tag="job_status"):
    """State of one job."""

    job: Identifier
    state: JobState
    scene: LongText
    model: LongText
    output: LongText
    window: Window | None = None  # pixels of the scene the result covers, once known
    rows_done: Count = 0
    rows: Count = 0
    next_seq: Count = 0  # number of row blocks journaled so far
    attempt: Count = 0
    code: ShortText = ""
    message: LongText = ""
    summary: dict[str, Any] = {}
    key: Identifier = ""
    title: ShortText = ""
    device: ShortText = ""
    submitted_at: Seconds = 0.0  # since the epoch, as are the next two; 0 while unknown
    started_at: Seconds = 0.0
    ended_at: Seconds = 0.0
    asked: SegmentJob | None = None  # in answers about one job


class Watch(Message, tag="watch"):
    """Receive the events of a job another session submitted, named by its id or its key.

    Answer: ``job_status``.
    """

    job: Identifier = ""
    key: Identifier = ""


class Delete(Message, tag="delete"):
    """Forget a job that ended, and its rows; what it wrote stays. Answer: ``deleted``."""

    job: Identifier


class Deleted(Message, tag="deleted"):
    """The daemon knows the job no more."""

    job: Identifier


class Plan(Message, tag="plan"):
    """Ask what a job would read, hold, write and take, without queueing it. Its output may be empty."""

    job: SegmentJob


class Planned(Message, tag="planned"):
    """Answer to ``plan``, as ``rest-backend plan --json`` prints it."""

    plan: dict[str, Any]


class Cancel(Message, tag="cancel"):
    """End a job. Answer: ``job_status``; then the event ``failed`` with code E_CANCELLED."""

    job: Identifier


class Progress(Message, tag="progress"):
    """Event: how far a running job is."""

    job: Identifier
    stage: Literal["queued", "loading", "statistics", "planning", "sweep", "writing"]
    rows_done: Count
    rows: Count
    rows_per_second: Seconds = 0.0
    eta_seconds: Seconds | None = None
    device: ShortText = ""
    memory_bytes: Count = 0  # resident memory of the worker
    note: LongText = ""  # something the user should know: no CRS, ops that fall back


class Done(Message, tag="done"):
    """Event: the output file is in place. ``seq`` is the number after the last row block."""

    job: Identifier
    seq: Count
    output: LongText
    summary: dict[str, Any] = {}  # as `rest-backend segment --json` prints it


class Failed(Message, tag="failed"):
    """Event: the job ended without a result; nothing of it is left on disk."""

    job: Identifier
    code: ShortText
    message: LongText


# --- rows ------------------------------------------------------------------------


class Attach(Message, tag="attach"):
    """On data: send me the row blocks of a job from ``seq`` on, ``credit`` of them for now."""

    job: Identifier
    seq: Count = 0
    credit: Annotated[int, msgspec.Meta(ge=0, le=CREDIT_LIMIT)] = 0


class Credit(Message, tag="credit"):
    """On data: ``credit`` more row blocks may be sent."""

    job: Identifier
    credit: Annotated[int, msgspec.Meta(ge=1, le=CREDIT_LIMIT)]


class Rows(Message, tag="rows"):
    """On data: finished rows of one product. Sequence numbers have no gap and start at 0.

    The payload decodes to ``width * height`` bytes, row by row, 255 where there is no
    result: class ids 0-254 for ``classes``; for ``confidence`` and ``probability-ID``
    (ID is a class id) values from 0 to 254 that stand for 0 to 1. ``window`` is relative
    to the scene, not to the job's window. ``crc32`` is of the payload as sent.
    """

    job: Identifier
    seq: Count
    window: Window
    codec: Literal["raw", "zlib"]
    crc32: Count
    product: Identifier = "classes"


Request = Hello | ListModels | Plan | Submit | Status | Watch | Cancel | Delete | Shutdown | Attach | Credit
Answer = (
    Welcome
    | Goodbye
    | Error
    | Models
    | Planned
    | DaemonStatus
    | Submitted
    | JobStatus
    | Deleted
    | Progress
    | Done
    | Failed
    | Rows
)
