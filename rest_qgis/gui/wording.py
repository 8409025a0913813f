"""How progress, plans and engine states read to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.PyQt.QtCore import QCoreApplication

_UNITS = ("kB", "MB", "GB", "TB", "PB")


def stage_text(progress: Any) -> str:
    """Return the stage of a job in words."""
    texts = {
        "queued": _tr("Waiting for the device…"),
        "loading": _tr("Loading the model…"),
        "statistics": _tr("Measuring the scene's bands…"),
        "planning": _tr("Planning the sweep…"),
        "sweep": _tr("Segmenting"),
        "writing": _tr("Writing the result…"),
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
        parts.append(size_text(progress.memory_bytes))
    return " · ".join(parts)


def plan_lines(plan: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a plan says in two short lines: what is computed and how, what that takes.

    Args:
        plan: A plan, as ``rest-backend plan --json`` prints it. While its bands are not known, nothing
            is known of what it takes: the second line is empty.
    """
    width, height = plan["window"][2:]
    work = [_tr("{0} × {1} px").format(width, height)]
    if plan.get("area_pixels") is not None:
        share = plan["area_pixels"] / max(1, width * height)
        work.append(_tr("{0} in the area").format(percent(share)))
    if plan.get("resolution_m"):
        work.append(_tr("network sees {0} × {1}").format(plan["run_width"], plan["run_height"]))
    count = len(plan["bands"])
    work.append(_tr("1 band") if count == 1 else _tr("{0} bands").format(count))
    # What a processor is called tells nobody anything, what a graphics card is called does.
    work.append(_tr("CPU") if plan["device"] == "cpu" else plan["device_name"] or plan["device"])
    rows = plan.get("stripe") or 0
    if rows:
        work.append(_tr("{0}-row stripes").format(rows))
    cost = []
    if plan.get("memory_bytes"):
        cost.append(_tr("{0} memory").format(size_text(plan["memory_bytes"])))
    if plan.get("output_bytes"):
        cost.append(_tr("≤ {0} on disk").format(size_text(plan["output_bytes"])))
    seconds = plan.get("seconds")
    if seconds is not None:
        cost.append(about(seconds))
    elif cost:
        cost.append(_tr("time unknown"))
    return _joined(work), _joined(cost)


def plan_details(plan: Mapping[str, Any]) -> list[str]:
    """Return what else a plan says, one sentence each: for a tooltip."""
    details = [str(note) for note in plan.get("notes") or []]
    if plan.get("device_name"):
        details.append(_tr("Device: {0}.").format(plan["device_name"]))
    if plan.get("seconds") is not None and plan.get("seconds_basis"):
        details.append(_tr("Time: {0}.").format(plan["seconds_basis"]))
    if plan.get("memory_limit_bytes"):
        details.append(_tr("Memory it may use: {0}.").format(size_text(plan["memory_limit_bytes"])))
    free = plan.get("free_bytes")
    if free is not None and plan.get("disk_bytes"):
        text = _tr("Disk while it is written: {0} of {1} free.")
        details.append(text.format(size_text(plan["disk_bytes"]), size_text(free)))
    if plan.get("fallback_ops"):
        text = _tr("Computed on the whole scene at once, because no rule sweeps them: {0}.")
        details.append(text.format(", ".join(plan["fallback_ops"])))
    return details


def match_text(how: str) -> str:
    """Return how a band of the scene was found for a band of the model."""
    texts = {
        "given": _tr("chosen"),
        "name": _tr("name"),
        "wavelength": _tr("wavelength"),
        "colour": _tr("colour"),
        "order": _tr("assumed"),
        "missing": _tr("missing"),
    }
    return texts.get(how, how)


def band_text(number: int, name: str, wavelength_nm: float | None) -> str:
    """Return a band of a scene as lists show it: ``4: B4 red (665 nm)``."""
    text = f"{number}: {name}" if name else _tr("Band {0}").format(number)
    known = wavelength_nm is None or str(int(wavelength_nm)) in name  # many names tell it already
    return text if known else f"{text} ({wavelength_nm:.0f} nm)"


def duration(seconds: float) -> str:
    """Return a duration as ``M:SS`` or ``H:MM:SS``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def about(seconds: float) -> str:
    """Return an expected duration, no more exact than it is: ``about 20 s``, ``about 3 min``."""
    if seconds < 1:
        return _tr("less than 1 s")
    if seconds < 90:
        return _tr("about {0} s").format(round(seconds) if seconds < 20 else 5 * round(seconds / 5))
    if seconds < 90 * 60:
        return _tr("about {0} min").format(round(seconds / 60))
    return _tr("about {0} h").format(f"{seconds / 3600:.1f}")


def size_text(size: float) -> str:
    """Return a number of bytes in the unit that suits it, decimal as disks are sold: ``1.4 GB``."""
    for unit in _UNITS:
        size /= 1000
        if size < 999.5 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def resolution_text(metres: float) -> str:
    """Return a ground resolution with as many digits as mean something: ``0.30 m``, ``28.5 m``."""
    if metres < 1:
        return f"{metres:.2g} m" if metres < 0.1 else f"{metres:.2f} m"
    return f"{metres:.3g} m" if metres < 1000 else f"{metres:.0f} m"


def percent(share: float) -> str:
    """Return a share of 1 in percent, never rounded to a false 0 or 100."""
    number = 100 * share
    if 0 < number < 1:
        return "< 1 %"
    if 99 < number < 100:
        return "> 99 %"
    return f"{number:.0f} %"


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


def _joined(parts: list[str]) -> str:
    """Join parts so that a line may break between them, not within."""
    return " · ".join(part.replace(" ", "\u00a0").replace("-", "\u2011") for part in parts)


def _tr(text: str) -> str:
    return QCoreApplication.translate("Wording", text)
