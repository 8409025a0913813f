"""A client in a process of its own, to be killed: comes back to a job, or submits it, and records its rows.

    python -m tests.daemon.returning_client HOME COMMAND KEY REQUEST_JSON RECORD

Of every block it is handed the bytes go to ``RECORD`` with the ending ``.bin`` and then a line to ``RECORD``,
both written at once. The exit code is 0 once the job is done.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rest_qgis.client import ClientError, Engine, JobListener, JobRequest


class Recorder(JobListener):
    def __init__(self, record: Path) -> None:
        self._lines = record.open("ab", buffering=0)
        self._values = record.with_suffix(".bin").open("ab", buffering=0)

    def rows(self, job: Any, rows: Any) -> None:
        window = (rows.column, rows.row, rows.width, rows.height)
        self._values.write(rows.values)
        self._lines.write(json.dumps([rows.seq, rows.product, window]).encode() + b"\n")


def main(home: str, command: str, key: str, request: str, record: str) -> None:
    fields = json.loads(request)
    if fields.get("window"):
        fields["window"] = tuple(fields["window"])
    listener = Recorder(Path(record))
    with Engine(home, command) as engine:
        try:
            done = engine.wait(engine.resume(key, listener))
        except ClientError as error:
            if error.code != "E_UNKNOWN_JOB":
                raise
            # It was noted, but an earlier process was killed before it could submit it.
            done = engine.wait(engine.segment(JobRequest(**fields), listener, key=key))
    assert done is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
