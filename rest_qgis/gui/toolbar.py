"""The toolbar "REST": the engine's state and the way to the dock."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QSize, Qt, QUrl
from qgis.PyQt.QtGui import QColor, QDesktopServices, QIcon, QPainter, QPixmap
from qgis.PyQt.QtWidgets import QFileDialog, QMenu, QToolBar, QToolButton

from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.wording import engine_text
from rest_qgis.processing.desk import backend_command, choose_backend
from rest_qgis.resources import icon_path

_COLORS = {
    "stopped": "#9a9a9a",
    "failed": "#c62f2f",
    "starting": "#e0a100",
    "unresponsive": "#e0a100",
    "ready": "#2e9e4f",
    "busy": "#2f7fd1",
}


class RestToolbar(QToolBar):
    """*Engine*, *Segment* and *Jobs*; the plugin ties the actions of the last two to the dock."""

    def __init__(self, interface: Any, link: EngineLink) -> None:
        super().__init__("REST", interface.mainWindow())
        self.setObjectName("RestToolbar")
        self._link = link
        self._state = "stopped"
        self._running: Any | None = None  # the order whose progress is shown
        self._percent: int | None = None

        self.engine_button = QToolButton(self)
        self.engine_button.setObjectName("RestEngine")
        self.engine_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.engine_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.engine_button)
        menu.setObjectName("RestEngineMenu")
        self.start_action = menu.addAction(self.tr("Start engine"))
        self.start_action.setObjectName("RestEngineStart")
        self.start_action.triggered.connect(self._start)
        self.stop_action = menu.addAction(self.tr("Stop engine"))
        self.stop_action.setObjectName("RestEngineStop")
        self.stop_action.triggered.connect(self._stop)
        menu.addSeparator()
        self.choose_action = menu.addAction(self.tr("Choose rest-backend…"))
        self.choose_action.setObjectName("RestEngineChoose")
        self.choose_action.triggered.connect(self._choose)
        self.log_action = menu.addAction(self.tr("Open log"))
        self.log_action.setObjectName("RestEngineLog")
        self.log_action.triggered.connect(self._open_log)
        self.engine_button.setMenu(menu)
        engine_action = self.addWidget(self.engine_button)
        engine_action.setObjectName("RestEngineAction")

        self.segment_action = self.addAction(QIcon(icon_path("segment.svg")), self.tr("Segment"))
        self.segment_action.setObjectName("RestSegment")
        self.segment_action.setToolTip(self.tr("Segment a whole scene (REST)"))
        self.widgetForAction(self.segment_action).setToolButtonStyle(
            Qt.ToolButtonStyle.ToolButtonTextBesideIcon
        )

        self.jobs_action = self.addAction(QgsApplication.getThemeIcon("/mActionHistory.svg"), "")
        self.jobs_action.setObjectName("RestJobs")
        self.jobs_action.setCheckable(True)
        self.widgetForAction(self.jobs_action).setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)

        self._slots = (
            (link.jobs_changed, self._show_jobs),
            (link.state_changed, self._show_state),
            (link.job_progress, self._show_progress),
            (link.job_done, self._end_job),
            (link.job_failed, self._end_job),
        )
        for signal, slot in self._slots:
            signal.connect(slot)
        self._render()
        self._show_jobs(link.jobs)

    def close_link(self) -> None:
        """Stop listening to the engine. May be called twice."""
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self._slots = ()

    def _start(self) -> None:
        self._link.start()

    def _stop(self) -> None:
        self._link.stop()

    def _choose(self) -> None:
        title = self.tr("The command rest-backend; the next start of the engine uses it")
        chosen, _filter = QFileDialog.getOpenFileName(self, title, backend_command() or "")
        if chosen:
            choose_backend(chosen)

    def _open_log(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(self._link.log_folder()))

    def _show_state(self, state: str, message: str) -> None:
        self._state = state
        self.engine_button.setToolTip(message or self.tr("The program that computes, on this computer"))
        self._render()

    def _show_progress(self, order: Any, progress: Any) -> None:
        self._running = order
        self._percent = int(100 * progress.rows_done / progress.rows) if progress.rows else 0
        self._render()

    def _show_jobs(self, jobs: list[dict[str, Any]]) -> None:
        running = sum(job["state"] == "running" for job in jobs)
        waiting = sum(job["state"] == "queued" for job in jobs)
        text = self.tr("Jobs")
        self.jobs_action.setText(f"{text} ({running + waiting})" if running + waiting else text)
        tip = self.tr("All jobs of the engine (REST)")
        if running + waiting:
            tip += "\n" + self.tr("{0} running, {1} waiting").format(running, waiting)
        self.jobs_action.setToolTip(tip)

    def _end_job(self, order: Any, *_details: Any) -> None:
        if order is self._running:
            self._running = self._percent = None
            self._render()

    def _render(self) -> None:
        busy = self._running is not None and self._state == "ready"
        shown = "busy" if busy else self._state
        self.engine_button.setIcon(_dot(_COLORS.get(shown, _COLORS["stopped"]), self.iconSize()))
        self.engine_button.setText(engine_text(shown, self._percent if busy else None))
        off = self._state in ("stopped", "failed")
        self.start_action.setEnabled(off)
        self.stop_action.setEnabled(not off)


def _dot(color: str, size: QSize) -> QIcon:
    side = max(16, size.height())
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QColor(color).darker(140))
    painter.setBrush(QColor(color))
    inset = side // 4
    painter.drawEllipse(inset, inset, side - 2 * inset, side - 2 * inset)
    painter.end()
    return QIcon(pixmap)
