"""How progress and engine states read to a person."""

from __future__ import annotations

from typing import Any

from qgis.PyQt.QtCore import QCoreApplication


def stage_text(progress: Any) -> str:
    """Return the stage of a job in words."""
    texts = {
        "queued": _tr("Waiting for the device…"),
        "loading": _tr("Loading the model…"),
        "statistics": _tr("Measuring the scene's bands…"),
        "planning": _tr("Planning the sweep…"),
        "sweep": _tr("Segmenting"),
        "writing": _tr("Writing the class map…"),
    }
    text = texts.get(progress.stage, progress.stage)
    if progress.stage == "sweep":
        text += _tr(": row {0} of {1}").format(progress.rows_done, progress.rows)
    return text


def progress_line(progress: Any) -> str:
    """Return speed, time left, device and memory in one line."""
    parts = []
    if progress.rows_per_second > 0:
        parts.append(_tr("{0} rows/s").format(f"{progress.rows_per_second:.0f}"))
    if progress.eta_seconds is not None:
        parts.append(_tr("{0} left").format(duration(progress.eta_seconds)))
    if progress.device:
        parts.append(progress.device)
    if progress.memory_bytes > 0:
        parts.append(f"{progress.memory_bytes / 1e9:.1f} GB")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """Return a duration as ``M:SS`` or ``H:MM:SS``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def engine_text(state: str, percent: int | None) -> str:
    """Return the state of the engine as the toolbar shows it."""
    texts = {
        "stopped": _tr("Off"),
        "failed": _tr("Off"),
        "starting": _tr("Starting"),
        "unresponsive": _tr("Not answering"),
        "ready": _tr("Idle"),
        "busy": _tr("Busy"),
    }
    text = texts.get(state, state)
    return text if state != "busy" or percent is None else f"{text} {percent} %"


def _tr(text: str) -> str:
    return QCoreApplication.translate("Wording", text)
