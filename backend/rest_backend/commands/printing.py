"""What commands print: a line of JSON for programs, words and bars for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rest_backend.methods.request import SegmentProgress

json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON on stdout.")


def print_json(value: dict[str, Any]) -> None:
    """One compact line on stdout."""
    click.echo(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


def in_units(amount: float) -> str:
    """Bytes for people, in decimal units: ``1.2 GB``, ``35 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def in_time(seconds: float) -> str:
    """A duration for people: ``4 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def progress_bar(shown: bool) -> AbstractContextManager[Callable[[SegmentProgress], None] | None]:
    """A bar on a terminal; nothing elsewhere."""
    if not shown or not sys.stderr.isatty():
        return nullcontext(None)
    return _Bar()


class _Bar:
    """Progress on the terminal, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} rows"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("loading", total=1)

    def __enter__(self) -> Callable[[SegmentProgress], None]:
        self._progress.start()
        return self._report

    def __exit__(self, *unused: object) -> None:
        self._progress.stop()

    def _report(self, progress: SegmentProgress) -> None:
        self._progress.update(
            self._task, description=progress.stage, completed=progress.rows_done, total=max(1, progress.rows)
        )
