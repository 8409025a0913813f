"""A plan for the tests: it runs in the real planner of the real daemon and misbehaves on demand.

As in ``fake_method`` the job's ``model`` is a query string.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from rest_backend.errors import CancelledError, InputError
from tests.daemon.fake_method import SegmentRequest

if os.environ.get("FAKE_PLANNER_START") == "crash":
    os._exit(3)


@dataclass(frozen=True)
class PlanRequest:
    segment: SegmentRequest


@dataclass(frozen=True)
class PlanSummary:
    scene: str
    bands: tuple[int, ...]
    output: str
    pid: int
    seconds: float | None = None
    scene_bands: list[dict[str, object]] = field(default_factory=list)


def plan(request: PlanRequest, cancelled: Callable[[], bool]) -> PlanSummary:
    segment = request.segment
    options = dict(parse_qsl(segment.model))
    fault = options.get("fault", "")
    if "mark" in options:
        Path(options["mark"]).touch()
    if fault == "input":
        raise InputError("E_SCENE_MISSING", f"There is no file {segment.scene}.")
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while "gate" in options and not Path(options["gate"]).exists():
        if cancelled() and fault != "deaf":
            raise CancelledError
        time.sleep(0.01)
    many = [{"number": number, "name": "x" * 100} for number in range(int(options.get("many", 0)))]
    return PlanSummary(str(segment.scene), segment.bands, str(segment.output), os.getpid(), None, many)
