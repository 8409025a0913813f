"""Messages of protocol 1, the one definition both sides follow.

This module is also what ``python -m rest_backend.wire.document`` makes ``docs/protocol.md``
of: what a message is for stands in its docstring, what a field holds in the comment behind
the field or above it. Every field has one.

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

    request: Identifier = ""  # chosen by the client, repeated in the answer; empty in events


# --- session -----------------------------------------------------------------


class Hello(Message, tag="hello"):
    """First message on control: who the client is and which protocols it speaks."""

    protocols: tuple[Count, Count]  # lowest and highest it speaks
    client: ShortText  # its name, for people
    version: ShortText  # its release, for people


class Welcome(Message, tag="welcome"):
    """Answer to ``hello``. A new ``boot`` tells the client the daemon restarted."""

    protocol: Count  # the one that is spoken from now on
    version: ShortText  # the daemon's release
    boot: Identifier  # made anew at each start of the daemon


class Goodbye(Message, tag="goodbye"):
    """The daemon ends the session: wrong protocol, or it shuts down."""

    code: ShortText  # E_PROTOCOL, E_SHUTDOWN, E_BUSY or E_SLOW
    message: LongText  # a sentence for the user
    supported: tuple[Count, Count] = (PROTOCOL, PROTOCOL)  # lowest and highest protocol the daemon speaks


class Error(Message, tag="error"):
    """A request was refused; the link stays up. On data also: no more rows of this job follow."""

    code: ShortText  # stable name of the cause
    message: LongText  # a sentence for the user
    job: Identifier = ""  # the job it is about, if any


# --- models and daemon ---------------------------------------------------------


class ListModels(Message, tag="list_models"):
    """Ask for the installed models."""


class Models(Message, tag="models"):
    """Answer: short summaries of the models, bundled first, as many as one header holds.

    ``rest-backend models --json`` prints all of them, with everything their cards say.
    """

    # of each: id, bundled, what it is for, its bands, classes and score
    models: Annotated[list[dict[str, Any]], msgspec.Meta(max_length=256)]
    left_out: Count = 0  # installed models this answer has no room for; their ids and paths work in jobs


class Device(msgspec.Struct, kw_only=True):
    """One compute device and its worker."""

    id: ShortText  # cpu or cuda:N, as jobs name it
    name: ShortText  # for people
    worker: Literal["starting", "idle", "busy", "down"]  # down: it was started three times and never ready
    memory_bytes: Count = 0  # all it has; 0 while unknown


class DaemonStatus(Message, tag="daemon_status"):
    """Answer to ``status`` without a job."""

    version: ShortText  # the daemon's release
    boot: Identifier  # as in welcome
    pid: Count  # its process
    uptime_seconds: Seconds  # since it was started
    devices: list[Device]  # none until the first worker has told them
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

    scene: LongText  # the raster to read
    model: LongText  # model id, or path of a card
    output: LongText  # the class map to write, a GeoTIFF
    window: Window | None = None  # column, row, width, height in pixels of the scene; null is the whole scene
    device: ShortText = "auto"  # auto, cpu, cuda:N
    memory_bytes: Count = 0  # most resident memory of its worker; 0: the daemon decides
    title: ShortText = ""  # what lists of jobs call it
    bands: BandNumbers = []  # of the scene, from 1, in the model's order; empty: matched by what they show
    aoi: LongText = ""  # vector file: only what its polygons cover gets a class
    resolution_m: Seconds = 0.0  # metres per pixel the network shall see; 0: the scene's own
    context: Literal["scene", "nearby"] = "scene"  # what pixels of an area may see; nearby is for previews
    confidence: LongText = ""  # raster to write with the highest softmax of each pixel; empty: none
    probabilities: LongText = ""  # raster to write with the softmax of every class; empty: none


class Submit(Message, tag="submit"):
    """Queue a job. The same ``key`` with the same job gives the same job id again."""

    key: Identifier  # chosen by the client and noted before it is sent, to come back with; ends in no dot
    job: SegmentJob  # what to do
    abandon_seconds: Count = 0  # cancel it when no client watches it for so long; 0: never


class Submitted(Message, tag="submitted"):
    """The job is in the journal: it will run even if the daemon is killed now."""

    job: Identifier  # the daemon's name for it
    key: Identifier  # the client's
    state: JobState  # not queued where the key was known already


class Status(Message, tag="status"):
    """Ask for one job (answer ``job_status``) or, with no job, for the daemon (``daemon_status``)."""

    job: Identifier = ""  # its id; empty: the daemon


class JobStatus(Message, tag="job_status"):
    """State of one job.

    Answers about one job have ``summary`` and ``asked`` too, as far as one header holds them;
    the list in ``daemon_status`` has neither.
    """

    job: Identifier  # its id
    state: JobState  # see Jobs, above
    scene: LongText  # as asked, like the next two
    model: LongText  # id, or path of a card
    output: LongText  # path of the class map
    window: Window | None = None  # pixels of the scene the result covers, once known
    rows_done: Count = 0  # class rows that are finished
    rows: Count = 0  # class rows of the result; 0 while unknown
    next_seq: Count = 0  # number of row blocks journaled so far, of all products
    attempt: Count = 0  # how often it went back to the queue because something died
    code: ShortText = ""  # of a job that failed or was cancelled
    message: LongText = ""  # likewise: a sentence for the user
    summary: dict[str, Any] = {}  # of a job that is done, as in the event
    key: Identifier = ""  # the client's
    title: ShortText = ""  # as asked
    device: ShortText = ""  # where it runs or ran last; empty before
    submitted_at: Seconds = 0.0  # since the epoch, as are the next two; 0 while unknown
    started_at: Seconds = 0.0  # when it last left the queue
    ended_at: Seconds = 0.0  # when it was done, failed or cancelled
    asked: SegmentJob | None = None  # the job as it was submitted


class Watch(Message, tag="watch"):
    """Receive the events of a job another session submitted, named by its id or its key.

    Answer: ``job_status``.
    """

    job: Identifier = ""  # its id; where given, the key does not count
    key: Identifier = ""  # its key


class Delete(Message, tag="delete"):
    """Forget a job that ended, and its rows; what it wrote stays. Answer: ``deleted``."""

    job: Identifier  # its id; E_JOB_RUNNING where it has not ended


class Deleted(Message, tag="deleted"):
    """The daemon knows the job no more."""

    job: Identifier  # its former id


class Plan(Message, tag="plan"):
    """Ask what a job would read, hold, write and take, without queueing it.

    A client's newest question takes the place of its earlier ones, which are answered
    with ``E_REPLACED``.
    """

    job: SegmentJob  # its output may be empty: then it is planned as a temporary file


class Planned(Message, tag="planned"):
    """Answer to ``plan``, as ``rest-backend plan --json`` prints it."""

    plan: dict[str, Any]  # what one header does not hold is left out, longest first, and named in left_out


class Cancel(Message, tag="cancel"):
    """End a job. Answer: ``job_status``; then the event ``failed`` with code E_CANCELLED."""

    job: Identifier  # its id


class Progress(Message, tag="progress"):
    """Event: how far a running job is."""

    job: Identifier  # its id
    stage: Literal["queued", "loading", "statistics", "planning", "sweep", "writing"]  # what is being done
    rows_done: Count  # class rows that are finished
    rows: Count  # class rows of the result; 0 while unknown
    rows_per_second: Seconds = 0.0  # of the sweep so far
    eta_seconds: Seconds | None = None  # expected to the last row; null while unknown
    device: ShortText = ""  # where it runs
    memory_bytes: Count = 0  # resident memory of the worker
    note: LongText = ""  # something the user should know: no CRS, ops that fall back


class Done(Message, tag="done"):
    """Event: the output files are in place."""

    job: Identifier  # its id
    seq: Count  # number of row blocks: the number after the last one
    output: LongText  # path of the class map
    summary: dict[str, Any] = {}  # as `rest-backend segment --json` prints it


class Failed(Message, tag="failed"):
    """Event: the job ended without a result; nothing of it is left on disk."""

    job: Identifier  # its id
    code: ShortText  # the operation's own, or one of the daemon's
    message: LongText  # a sentence for the user


# --- rows ------------------------------------------------------------------------


class Attach(Message, tag="attach"):
    """On data: send me the row blocks of a job from ``seq`` on, ``credit`` of them for now."""

    job: Identifier  # its id
    seq: Count = 0  # first row block wanted
    credit: Annotated[int, msgspec.Meta(ge=0, le=CREDIT_LIMIT)] = 0  # row blocks that may be sent


class Credit(Message, tag="credit"):
    """On data: ``credit`` more row blocks may be sent."""

    job: Identifier  # its id
    credit: Annotated[int, msgspec.Meta(ge=1, le=CREDIT_LIMIT)]  # added to what is left


class Rows(Message, tag="rows"):
    """On data: finished rows of one product.

    The payload decodes to ``width * height`` bytes, row by row, 255 where there is no
    result: class ids 0-254 for ``classes``; for ``confidence`` and ``probability-ID``
    (ID is a class id) values from 0 to 254 that stand for 0 to 1.
    """

    job: Identifier  # its id
    seq: Count  # from 0 without gap, over all products of the job
    window: Window  # column, row, width, height in pixels of the scene, not of the job's window
    codec: Literal["raw", "zlib"]  # of the payload: zlib where that is shorter
    crc32: Count  # of the payload as sent
    product: Identifier = "classes"  # what the bytes are


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
