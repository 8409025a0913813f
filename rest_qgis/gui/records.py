"""What is kept of unfinished jobs, to find them again after QGIS was closed or died.

A job's key and order lie in two places before the job is handed in: in the project,
whose file they reach when it is saved, and in the user's profile, which also serves
a project that was never saved or died unsaved. A job belongs to the project it was
started in and comes back to that one alone. Jobs that ended leave both.

Both places can be written by others: everything read is bounded and checked, and
what makes no sense is left out.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping
from typing import Any

from qgis.core import QgsProject, QgsSettings

from rest_qgis.processing.desk import Order
from rest_qgis.processing.models import ModelClass

MOST_RECORDS = 50  # in a project, and in the profile; the newest are kept
_LONGEST_ENTRY = 2_000_000  # characters
_LONGEST_RECORD = 100_000  # characters; 255 classes with long names need less
_LONGEST_TEXT = 4096  # characters, as on the wire
_SCOPE, _ENTRY = "rest_qgis", "/jobs"
_SETTINGS = "rest_qgis/jobs"
_TEXTS = ("scene", "model", "output", "title", "device", "aoi", "confidence", "probabilities")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_KEY = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


def keep_in_profile(order: Order, project: str) -> None:
    """Note an order in the user's profile, on the disk when this returns; for any thread.

    Args:
        order: The job.
        project: File of the project it belongs to, empty where that was never saved.
    """
    settings = QgsSettings()
    settings.setValue(f"{_SETTINGS}/{order.key}", _record(time.time(), project, order))
    known = _profile()
    for key in sorted(known, key=lambda key: known[key][0])[:-MOST_RECORDS]:
        settings.remove(f"{_SETTINGS}/{key}")
    settings.sync()


def keep_in_project(order: Order) -> None:
    """Note an order in the open project, which does not ask to be saved for it; main thread only."""
    others = [record for record in _project() if record["key"] != order.key]
    _write_project([*others, _fields(order)][-MOST_RECORDS:])


def belongs_to_project(key: str) -> bool:
    """Whether the open project has a job of this key; main thread only."""
    return any(record["key"] == key for record in _project())


def forget(key: str) -> None:
    """Take a job that ended out of the open project and of the profile; main thread only."""
    records = _project()
    others = [record for record in records if record["key"] != key]
    if len(others) < len(records):
        _write_project(others)
    QgsSettings().remove(f"{_SETTINGS}/{key}")


def orders_of_project(unsaved: bool) -> list[Order]:
    """Return the unfinished jobs of the open project, oldest first; main thread only.

    Args:
        unsaved: Whether jobs of a project that was never saved belong to the open one, if that has
            no file either: so when QGIS has just been started.
    """
    file = QgsProject.instance().fileName()
    orders = {record["key"]: order for record in _project() if (order := _order(record)) is not None}
    for _since, project, order in sorted(_profile().values(), key=lambda record: record[0]):
        if project == file and (file or unsaved):
            orders.setdefault(order.key, order)
    return list(orders.values())


def follow_project() -> None:
    """Have the profile know the file the open project was just saved as; main thread only."""
    file = QgsProject.instance().fileName()
    mine = {record["key"] for record in _project()}
    for key, (since, project, order) in _profile().items():
        if key in mine and project != file:
            QgsSettings().setValue(f"{_SETTINGS}/{key}", _record(since, file, order))


def _project() -> list[dict[str, Any]]:
    text, _found = QgsProject.instance().readEntry(_SCOPE, _ENTRY, "")
    records = _parsed(text, _LONGEST_ENTRY)
    if not isinstance(records, list):
        return []
    named = [record for record in records if isinstance(record, dict) and _is_key(record.get("key"))]
    return named[-MOST_RECORDS:]


def _write_project(records: list[dict[str, Any]]) -> None:
    project = QgsProject.instance()
    with QgsProject.blockDirtying(project):
        if records:
            project.writeEntry(_SCOPE, _ENTRY, json.dumps(records))
        else:
            project.removeEntry(_SCOPE, _ENTRY)


def _profile() -> dict[str, tuple[float, str, Order]]:
    """Time, project's file and order of each job in the profile."""
    settings = QgsSettings()
    settings.beginGroup(_SETTINGS)
    texts = {key: settings.value(key, "", type=str) for key in settings.childKeys()}
    settings.endGroup()
    found = {}
    for key, text in texts.items():
        record = _parsed(text, _LONGEST_RECORD)
        fields = record if isinstance(record, dict) else {}
        since, project = fields.get("since"), fields.get("project")
        order = _order(fields.get("order"))
        if isinstance(since, (int, float)) and isinstance(project, str) and order is not None:
            found[key] = (since, project, order)
        else:
            settings.remove(f"{_SETTINGS}/{key}")
    return found


def _record(since: float, project: str, order: Order) -> str:
    return json.dumps({"since": since, "project": project, "order": _fields(order)})


def _parsed(text: str, longest: int) -> Any:
    if len(text) > longest:
        return None
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None


def _fields(order: Order) -> dict[str, Any]:
    fields = {field.name: getattr(order, field.name) for field in dataclasses.fields(order)}
    fields["classes"] = [
        {"id": entry.id, "name": entry.name, "color": entry.color} for entry in order.classes
    ]
    # What holds for the session that asked only, or for jobs that are not kept.
    for name in ("watchable", "preview", "abandon_seconds"):
        del fields[name]
    return fields


def _order(record: Any) -> Order | None:
    """The order a record stands for, None for a record nobody of us wrote."""
    if not isinstance(record, Mapping) or not _is_key(record.get("key")):
        return None
    texts = {name: record.get(name) for name in _TEXTS}
    classes, window, bands = (record.get(name) for name in ("classes", "window", "bands"))
    resolution = record.get("resolution_m")
    sound = (
        all(isinstance(text, str) and len(text) <= _LONGEST_TEXT for text in texts.values())
        and isinstance(classes, list)
        and len(classes) <= 255
        and all(_is_class(entry) for entry in classes)
        and (window is None or (_is_numbers(window) and len(window) == 4))
        and _is_numbers(bands)
        and _is_numbers([record.get("memory_bytes")])
        and isinstance(resolution, (int, float))
        and isinstance(record.get("keep_layer"), bool)
    )
    if not sound:
        return None
    return Order(
        **texts,
        key=record["key"],
        classes=[ModelClass(entry["id"], entry["name"], entry["color"]) for entry in classes],
        window=None if window is None else tuple(window),
        bands=tuple(bands),
        memory_bytes=record["memory_bytes"],
        resolution_m=float(resolution),
        keep_layer=record["keep_layer"],
    )


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and _KEY.fullmatch(value) is not None


def _is_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 1024
        and all(isinstance(number, int) and 0 <= number < 2**53 for number in value)
    )


def _is_class(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("id"), int)
        and 0 <= value["id"] <= 254
        and isinstance(value.get("name"), str)
        and isinstance(value.get("color"), str)
        and _COLOR.fullmatch(value["color"]) is not None
    )
