"""The link to the engine: needs the standard library and pyzmq, neither QGIS nor the backend.

Example:
    with Engine() as engine:
        job = engine.segment(JobRequest("/data/scene.tif", "kitsap-buildings", "/data/classes.tif"))
        print(engine.wait(job).summary)
"""

from __future__ import annotations

from .engine import Engine
from .errors import ClientError
from .job import Done, Job, JobListener, JobRequest, Progress, new_key
from .rows import Rows
from .session import EngineState

__all__ = [
    "ClientError",
    "Done",
    "Engine",
    "EngineState",
    "Job",
    "JobListener",
    "JobRequest",
    "Progress",
    "Rows",
    "new_key",
]
