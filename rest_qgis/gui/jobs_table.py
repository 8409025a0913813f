"""The engine's jobs as rows of a table, and how they are drawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import (
    QAbstractTableModel,
    QCoreApplication,
    QModelIndex,
    QRect,
    QSortFilterProxyModel,
    Qt,
)
from qgis.PyQt.QtGui import QIcon, QPainter
from qgis.PyQt.QtWidgets import (
    QApplication,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionProgressBar,
    QStyleOptionViewItem,
)

from rest_qgis.gui.wording import duration

JOB, STATE, TIME = range(3)
JOB_ROLE = Qt.ItemDataRole.UserRole  # the whole job, a dict
SORT_ROLE = Qt.ItemDataRole.UserRole + 1
SHARE_ROLE = Qt.ItemDataRole.UserRole + 2  # of a running job, 0 to 1; None for others
UNFINISHED = ("queued", "running")
_ORDER = {"running": 0, "queued": 1, "done": 2, "failed": 3, "cancelled": 4}
_ICONS = {
    "running": "mTaskRunning.svg",
    "queued": "mTaskQueued.svg",
    "done": "mIconSuccess.svg",
    "failed": "mTaskTerminated.svg",
    "cancelled": "mTaskCancel.svg",
}


class JobsModel(QAbstractTableModel):
    """One row a job: what a narrow dock has room for; the rest is in the tooltip and the details."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._jobs: list[dict[str, Any]] = []
        self._titles = (self.tr("Job"), self.tr("State"), self.tr("Started"))

    def set_jobs(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Show these jobs.

        Args:
            jobs: Dicts with the fields of the wire's ``job_status``.
        """
        if [job["job"] for job in jobs] != [job["job"] for job in self._jobs]:
            self.beginResetModel()
            self._jobs = list(jobs)
            self.endResetModel()
        elif jobs:
            self._jobs = list(jobs)
            self.dataChanged.emit(self.index(0, 0), self.index(len(jobs) - 1, len(self._titles) - 1))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of jobs."""
        return 0 if parent is not None and parent.isValid() else len(self._jobs)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(self._titles)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's title."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section]
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows, explains and is sorted by."""
        job, column = self._jobs[index.row()], index.column()
        if role == JOB_ROLE:
            return job
        if role == Qt.ItemDataRole.DisplayRole:
            return _cell(job, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return job_facts(job)
        if role == Qt.ItemDataRole.DecorationRole and column == JOB:
            return _icon(job["state"])
        if role == SHARE_ROLE and column == STATE and job["state"] == "running":
            return _share(job)
        if role == SORT_ROLE:
            if column == STATE:
                return (_ORDER[job["state"]], -(_share(job) or 0.0))
            return _submitted(job) if column == TIME else _cell(job, column).casefold()
        return None


class JobsOrder(QSortFilterProxyModel):
    """The rows as the person sorts them."""

    def lessThan(self, left: QModelIndex, right: QModelIndex) -> bool:
        """Compare two cells of a column."""
        return left.data(SORT_ROLE) < right.data(SORT_ROLE)


class JobDelegate(QStyledItemDelegate):
    """Draws how far a running job is as a bar."""

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Draw a cell."""
        share = index.data(SHARE_ROLE)
        if share is None:
            super().paint(painter, option, index)
            return
        style = option.widget.style() if option.widget is not None else QApplication.style()
        style.drawPrimitive(QStyle.PrimitiveElement.PE_PanelItemViewItem, option, painter, option.widget)
        bar = QStyleOptionProgressBar()
        bar.rect = QRect(option.rect).adjusted(2, 3, -2, -3)
        bar.palette = option.palette
        bar.fontMetrics = option.fontMetrics
        bar.state = option.state | QStyle.StateFlag.State_Horizontal
        bar.minimum, bar.maximum, bar.progress = 0, 100, int(100 * share)
        bar.text = f"{bar.progress} %"
        bar.textVisible = True
        bar.textAlignment = Qt.AlignmentFlag.AlignCenter
        style.drawControl(QStyle.ControlElement.CE_ProgressBar, bar, painter, option.widget)


def job_title(job: dict[str, Any]) -> str:
    """Return what a job is called: its title, or its scene's name."""
    return job.get("title") or Path(job["scene"]).stem or job["job"]


def state_text(state: str) -> str:
    """Return a job's state in a word."""
    texts = {
        "queued": _tr("Waiting"),
        "running": _tr("Running"),
        "done": _tr("Done"),
        "failed": _tr("Failed"),
        "cancelled": _tr("Cancelled"),
    }
    return texts.get(state, state)


def job_facts(job: dict[str, Any]) -> str:
    """Return all a person may want to know of a job, one fact a line."""
    state = state_text(job["state"])
    if job["state"] == "running" and job.get("rows"):
        state = _tr("{0}: row {1} of {2}").format(state, job.get("rows_done", 0), job["rows"])
    lines = [job_title(job), _tr("State: {0}").format(state)]
    if job.get("message"):
        lines.append(f"{job['message']} ({job.get('code', '')})")
    for text, value in (
        (_tr("Scene: {0}"), job["scene"]),
        (_tr("Model: {0}"), job["model"]),
        (_tr("Result: {0}"), job["output"]),
        (_tr("Device: {0}"), job.get("device")),
        (_tr("Submitted: {0}"), _moment(job.get("submitted_at"))),
        (_tr("Started: {0}"), _moment(job.get("started_at"))),
        (_tr("Ended: {0}"), _moment(job.get("ended_at"))),
        (_tr("Time taken: {0}"), _taken(job)),
        (_tr("Job: {0}"), job["job"]),
    ):
        if value:
            lines.append(text.format(value))
    return "\n".join(lines)


def _cell(job: dict[str, Any], column: int) -> str:
    if column == JOB:
        return job_title(job)
    if column == STATE:
        code = job.get("code") if job["state"] == "failed" else ""
        return f"{state_text(job['state'])} ({code})" if code else state_text(job["state"])
    # Of another day the day is enough here; the tooltip has both.
    day_or_time = _moment(_submitted(job)).split(" ")[0]
    return " · ".join(part for part in (day_or_time, _taken(job)) if part)


def _icon(state: str) -> QIcon:
    return QgsApplication.getThemeIcon("/" + _ICONS[state])


def _share(job: dict[str, Any]) -> float | None:
    return job.get("rows_done", 0) / job["rows"] if job.get("rows") else None


def _submitted(job: dict[str, Any]) -> float:
    return float(job.get("started_at") or job.get("submitted_at") or 0.0)


def _moment(seconds: float | None) -> str:
    """A time of today as ``14:05``, an earlier one with its day; empty while there is none."""
    if not seconds:
        return ""
    moment = time.localtime(seconds)
    today = time.localtime()[:3] == moment[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", moment)


def _taken(job: dict[str, Any]) -> str:
    started, ended = job.get("started_at"), job.get("ended_at")
    if not started:
        return ""
    return duration(max(0.0, (ended or time.time()) - started)) if ended or job["state"] == "running" else ""


def _tr(text: str) -> str:
    return QCoreApplication.translate("JobsTable", text)
