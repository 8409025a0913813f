"""Segment the sample scene as QGIS would: through the daemon and the plugin's own client.

``make demo`` runs this with the backend's Python. It starts the daemon in a home
of its own, hands in one job, writes ``build/demo/classes.tif`` and
``build/demo/preview.png``, says how it went and ends the daemon.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preview import draw_preview

from rest_qgis.client import ClientError, Done, Engine, Job, JobListener, JobRequest, Progress, Rows

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "demo"
SCENE = ROOT / "resources" / "scenes" / "kitsap.tif"
MODEL = "kitsap-buildings"
FAILED_START = ("E_ENGINE_MISSING", "E_ENGINE_START")  # told already
PATIENCE = 300.0  # seconds for the daemon's answers


def main() -> int:
    """Run the demo; returns the exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    output, preview = FOLDER / "classes.tif", FOLDER / "preview.png"
    # The environment's own command: the demo shows what was just set up.
    command = Path(sys.executable).parent / "rest-backend"
    os.environ.pop("REST_BACKEND", None)  # it would win
    try:
        with Engine(FOLDER / "home", command) as engine:
            try:
                card = _card(engine)
                run = _segment(engine, JobRequest(str(SCENE), MODEL, str(output)))
            finally:
                _shutdown(engine)
        draw_preview(SCENE, output, card, _summary_line(run), preview)
    except ClientError as error:
        sys.stderr.write(f"\n{error.message} ({error.code})\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nThe demo was interrupted; the daemon was ended.\n")
        return 3
    _report(run, card, output, preview)
    return 0


@dataclass
class Run(JobListener):
    """What the client saw of the job; times in seconds since it was handed in."""

    begun: float = field(default_factory=time.monotonic)
    first_rows: float = 0.0
    blocks: int = 0
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    line: ProgressLine = field(default_factory=lambda: ProgressLine())

    def progress(self, job: Job, progress: Progress) -> None:
        """Show how far it is."""
        self.line.show(progress)
        if progress.note and progress.note not in self.notes:
            self.notes.append(progress.note)

    def rows(self, job: Job, rows: Rows) -> None:
        """Count the blocks a canvas would have drawn by now."""
        self.first_rows = self.first_rows or time.monotonic() - self.begun
        self.blocks += 1

    def done(self, job: Job, done: Done) -> None:
        """Remember the result's numbers."""
        self.seconds = time.monotonic() - self.begun
        self.summary = done.summary


class ProgressLine:
    """One line that is written over on a terminal; elsewhere a line every quarter."""

    def __init__(self) -> None:
        self._last = ""
        self._terminal = sys.stdout.isatty()

    def show(self, progress: Progress) -> None:
        """Show a job's progress."""
        share = progress.rows_done / progress.rows if progress.rows else 0.0
        text = f"{progress.stage:<11}"
        if progress.stage == "sweep":
            bar = "█" * int(share * 30)
            text += f"{bar:<30} {share:4.0%}"
            if self._terminal:
                text += f"  {progress.rows_per_second:5.0f} rows/s"
                text += "" if progress.eta_seconds is None else f"  {progress.eta_seconds:4.0f} s left"
        key = text if self._terminal else f"{progress.stage} {int(share * 4)}"
        if key == self._last:
            return
        self._last = key
        sys.stdout.write(f"\r  {text}\033[K" if self._terminal else f"  {text}\n")
        sys.stdout.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._terminal and self._last:
            sys.stdout.write("\n")


def _card(engine: Engine) -> dict[str, Any]:
    """The model's card, as the daemon tells it; this starts the daemon."""
    sys.stdout.write("Starting the engine …\n")
    models: list[dict[str, Any]] = _answer(engine.models)
    for model in models:
        if model["id"] == MODEL:
            return model
    raise ClientError("E_MODEL_MISSING", f"The engine does not have the model {MODEL}.")


def _segment(engine: Engine, request: JobRequest) -> Run:
    sys.stdout.write(f"Segmenting {SCENE.relative_to(ROOT)} with {MODEL} …\n")
    run = Run()
    job = engine.segment(request, run)
    try:
        # In short waits, so that Ctrl+C is heard on every system.
        while engine.wait(job, 0.5) is None:
            continue
    except KeyboardInterrupt:
        job.cancel()
        raise
    finally:
        run.line.end()
    return run


def _shutdown(engine: Engine) -> None:
    told: list[ClientError | None] = []
    ended = threading.Event()

    def answered(error: ClientError | None) -> None:
        told.append(error)
        ended.set()

    engine.shutdown(answered)
    if not ended.wait(30):
        sys.stderr.write("The engine did not end within 30 seconds.\n")
    elif told[0] is not None and told[0].code not in FAILED_START:
        sys.stderr.write(f"{told[0].message} ({told[0].code})\n")


def _answer(ask: Callable[[Callable[[Any, ClientError | None], None]], None]) -> Any:
    """The answer to a question of the client's, waited for."""
    told: list[tuple[Any, ClientError | None]] = []
    come = threading.Event()

    def answered(answer: Any, error: ClientError | None) -> None:
        told.append((answer, error))
        come.set()

    ask(answered)
    if not come.wait(PATIENCE):
        raise ClientError("E_ENGINE_SILENT", f"The engine did not answer within {PATIENCE:.0f} seconds.")
    answer, error = told[0]
    if error is not None:
        raise error
    return answer


def _summary_line(run: Run) -> str:
    """One line about the run for the picture."""
    summary = run.summary
    return (
        f"{summary['seconds']:.1f} s on {summary['device']}, "
        f"peak memory {summary['peak_rss_bytes'] / 1e9:.2f} GB, "
        f"first rows {summary['first_rows_fraction']:.0%} into the sweep"
    )


def _report(run: Run, card: dict[str, Any], output: Path, preview: Path) -> None:
    summary = run.summary
    sweep = summary["sweep_seconds"]
    first = summary["first_rows_fraction"] * sweep
    score = card["score"]
    names = {entry["id"]: entry["name"] for entry in card["classes"]}
    rows = [
        ("seconds", f"{summary['seconds']:.1f} ({run.seconds:.1f} from handing in to the last row here)"),
        ("sweep", f"{sweep:.1f} s, {summary['rows_per_second']:.0f} rows/s on {summary['device']}"),
        (
            "first rows",
            f"{summary['first_rows_fraction']:.1%} into the sweep ({first:.1f} s), on this client "
            f"{run.first_rows:.1f} s after handing in",
        ),
        ("peak memory", f"{summary['peak_rss_bytes'] / 1e9:.2f} GB (the worker process)"),
        *((f"IoU {names[entry['id']]}", _class_score(entry)) for entry in score["classes"]),
        (
            "scored on",
            f"the test block only, {score['pixels']:,} pixels never trained on (outlined in the preview)",
        ),
        ("class map", str(output)),
        ("preview", str(preview)),
    ]
    rows += [("note", note) for note in run.notes]
    sys.stdout.write("\n" + "".join(f"  {name:<16} {text}\n" for name, text in rows))


def _class_score(entry: dict[str, Any]) -> str:
    return f"{entry['iou']:.3f}  (precision {entry['precision']:.3f}, recall {entry['recall']:.3f})"


if __name__ == "__main__":
    sys.exit(main())
