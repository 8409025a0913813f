"""The tab "Jobs": all jobs of the engine, also those of other sessions, and what can be done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from qgis.core import QgsApplication, QgsMapLayer, QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QEvent, QPoint, Qt, QTimer, QUrl, pyqtSignal
from qgis.PyQt.QtGui import QDesktopServices, QKeyEvent, QKeySequence, QResizeEvent
from qgis.PyQt.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QStackedWidget,
    QToolButton,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from rest_qgis.gui.jobs_table import (
    JOB_ROLE,
    TIME,
    UNFINISHED,
    JobDelegate,
    JobsModel,
    JobsOrder,
    job_facts,
    job_title,
)
from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.messages import Messages
from rest_qgis.layers.group import insert_in_group
from rest_qgis.layers.live_layers import LiveLayers
from rest_qgis.layers.names import JOB_PROPERTY
from rest_qgis.processing.desk import Order
from rest_qgis.processing.errors import ModelError
from rest_qgis.processing.models import choose_model

REFRESH_MILLISECONDS = 1500  # of the list, while it is seen and the engine runs
_SHARES = (0.46, 0.24, 0.30)  # of the width, a column


class JobsPanel(QWidget):
    """Lists jobs and acts on those selected; it never starts the engine by itself.

    Signals:
        seen_changed: Whether the panel is seen now.
    """

    seen_changed = pyqtSignal(bool)

    def __init__(self, interface: Any, link: EngineLink, live_layers: LiveLayers, messages: Messages) -> None:
        super().__init__()
        self.setObjectName("RestJobsPanel")
        self._interface = interface
        self._link = link
        self._live_layers = live_layers
        self._messages = messages
        self._timer = QTimer(self)
        self._timer.setObjectName("RestJobsTimer")
        self._timer.setInterval(REFRESH_MILLISECONDS)
        self._timer.timeout.connect(link.ask_jobs)
        self._build()
        self._slots = (
            (link.jobs_changed, self._show_jobs),
            (link.state_changed, self._show_state),
        )
        for signal, slot in self._slots:
            signal.connect(slot)
        self._show_jobs(link.jobs)

    def selected_jobs(self) -> list[dict[str, Any]]:
        """Return the jobs of the selected rows, as ``job_status`` has them."""
        return [index.data(JOB_ROLE) for index in self.table.selectionModel().selectedRows()]

    def close_link(self) -> None:
        """Stop asking and listening. May be called twice."""
        self._timer.stop()
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self._slots = ()

    def showEvent(self, event: QEvent) -> None:
        """Be up to date as long as the panel is seen."""
        super().showEvent(event)
        if self._slots:
            self._link.ask_jobs()  # finds an engine that runs; starts none
            self._follow()
        self.seen_changed.emit(True)

    def hideEvent(self, event: QEvent) -> None:
        """Ask no more while nobody looks."""
        super().hideEvent(event)
        self._timer.stop()
        self.seen_changed.emit(False)

    # --- what a person does ------------------------------------------------------------------

    def load(self) -> None:
        """Put the results of the selected jobs that are done on the map."""
        for job in self.selected_jobs():
            if job["state"] == "done":
                self._load(job)

    def show_running(self) -> None:
        """Draw the selected jobs that are not done on the map while they run."""
        for job in self.selected_jobs():
            if job["state"] in UNFINISHED:
                self._show_running(job)

    def cancel(self) -> None:
        """End the selected jobs that are not done; more than one only after a question."""
        jobs = [job for job in self.selected_jobs() if job["state"] in UNFINISHED]
        question = self.tr("Cancel {0} jobs? Nothing of them is kept.").format(len(jobs))
        if len(jobs) < 2 or self._confirmed(question):
            for job in jobs:
                self._link.cancel(job["job"])

    def delete(self) -> None:
        """Take the selected jobs that ended off the list; more than one only after a question."""
        jobs = [job for job in self.selected_jobs() if job["state"] not in UNFINISHED]
        question = self.tr("Take {0} jobs off the list? The files they wrote stay.").format(len(jobs))
        if len(jobs) < 2 or self._confirmed(question):
            for job in jobs:
                self._link.delete(job["job"])

    def show_details(self) -> None:
        """Show all that is known of the selected jobs, for reading and copying."""
        texts = [job_facts(job) for job in self.selected_jobs()]
        if texts:
            self._messages.open_text(self.tr("REST jobs"), "\n\n".join(texts))

    def copy_message(self) -> None:
        """Copy what the selected jobs failed of."""
        lines = [f"{job['message']} ({job.get('code', '')})" for job in self.selected_jobs() if _failed(job)]
        if lines:
            QApplication.clipboard().setText("\n".join(lines))

    def open_log(self) -> None:
        """Open the folder of the engine's log."""
        QDesktopServices.openUrl(QUrl.fromLocalFile(self._link.log_folder()))

    def _activate(self) -> None:
        self.load()
        self.show_running()
        if any(_failed(job) for job in self.selected_jobs()):
            self.show_details()

    def _load(self, job: dict[str, Any]) -> None:
        layer = _layer_of(job)
        if layer is None:
            if not Path(job["output"]).is_file():
                self._messages.warning(
                    self.tr("“{0}”: its result {1} is not there any more.").format(
                        job_title(job), job["output"]
                    )
                )
                return
            layer = QgsRasterLayer(job["output"], job_title(job), "gdal")  # styled by the QML beside it
            layer.setCustomProperty(JOB_PROPERTY, job["job"])
            insert_in_group(QgsProject.instance(), layer, job["scene"])
        self._interface.setActiveLayer(layer)

    def _show_running(self, job: dict[str, Any]) -> None:
        layer = _layer_of(job)
        if layer is not None:
            self._interface.setActiveLayer(layer)
            return
        key = job.get("key") or job["job"]
        if self._live_layers.show_again({key}):
            return
        try:
            model = choose_model(job["model"], self._link.models)
        except ModelError as error:
            self._messages.error(error.code, str(error))
            return
        self._link.resume(
            Order(
                scene=job["scene"],
                model=job["model"],
                output=job["output"],
                classes=model.classes,
                title=job_title(job),
                window=job.get("window"),
                key=key,
            )
        )

    def _confirmed(self, question: str) -> bool:
        answer = QMessageBox.question(self, self.tr("REST jobs"), question)
        return answer == QMessageBox.StandardButton.Yes

    # --- what the engine says ---------------------------------------------------------------

    def _show_jobs(self, jobs: list[dict[str, Any]]) -> None:
        selected = {job["job"] for job in self.selected_jobs()}
        current = self.table.currentIndex().data(JOB_ROLE)
        self._model.set_jobs(jobs)
        if not self.selected_jobs() and selected:
            self._select(selected, current["job"] if current else "")
        self._show_state(self._link.state)

    def _select(self, names: set[str], current: str) -> None:
        selection = self.table.selectionModel()
        rows = selection.SelectionFlag.Select | selection.SelectionFlag.Rows
        for row in range(self._order.rowCount()):
            index = self._order.index(row, 0)
            name = index.data(JOB_ROLE)["job"]
            if name == current:
                selection.setCurrentIndex(index, selection.SelectionFlag.NoUpdate)
            if name in names:
                selection.select(index, rows)

    def _show_state(self, state: str, _message: str = "") -> None:
        off = state in ("stopped", "failed")
        self.start_button.setVisible(off)
        if off:
            text = self.tr("The engine is off. Its jobs are listed here once it runs.")
        elif state == "starting":
            text = self.tr("The engine is starting…")
        else:
            text = self.tr("No jobs yet. What you run is listed here, and goes on when QGIS is closed.")
        self.empty_label.setText(text)
        self._pages.setCurrentIndex(1 if self._model.rowCount() else 0)
        self._enable()
        self._follow()

    def _follow(self) -> None:
        """Ask again and again, as long as the panel is seen and the engine runs."""
        wanted = bool(self._slots) and self.isVisible() and self._link.state in ("ready", "unresponsive")
        if wanted and not self._timer.isActive():
            self._timer.start()
        elif not wanted:
            self._timer.stop()

    def _enable(self, *_selection: Any) -> None:
        jobs = self.selected_jobs()
        self.load_action.setEnabled(any(job["state"] == "done" for job in jobs))
        unfinished = any(job["state"] in UNFINISHED for job in jobs)
        self.show_action.setEnabled(unfinished)
        self.cancel_action.setEnabled(unfinished)
        self.delete_action.setEnabled(any(job["state"] not in UNFINISHED for job in jobs))
        self.details_action.setEnabled(bool(jobs))
        self.copy_action.setEnabled(any(_failed(job) for job in jobs))

    # --- layout --------------------------------------------------------------------------------

    def _build(self) -> None:
        self._model = JobsModel(self)
        self._order = JobsOrder(self)
        self._order.setSourceModel(self._model)
        self.table = _Table()
        self.table.setObjectName("RestJobsTable")
        self.table.setModel(self._order)
        self.table.setItemDelegate(JobDelegate(self.table))
        self.table.setRootIsDecorated(False)
        self.table.setUniformRowHeights(True)
        self.table.setAllColumnsShowFocus(True)
        self.table.setAlternatingRowColors(True)
        self.table.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._open_menu)
        self._menu = QMenu(self)
        self._menu.setObjectName("RestJobsMenu")
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.header()
        header.setStretchLastSection(True)
        header.setMinimumSectionSize(24)
        header.setTextElideMode(Qt.TextElideMode.ElideRight)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(TIME, Qt.SortOrder.DescendingOrder)
        self.table.opened.connect(self._activate)
        self.table.selectionModel().selectionChanged.connect(self._enable)

        buttons = QHBoxLayout()
        buttons.setContentsMargins(4, 2, 4, 2)
        buttons.setSpacing(2)
        self.load_action = self._action(
            buttons, "Load", "mActionAddRasterLayer", self.tr("Load result"), self.load
        )
        self.show_action = self._action(
            buttons,
            "Show",
            "mActionShowAllLayers",
            self.tr("Show on the map while it runs"),
            self.show_running,
        )
        self.cancel_action = self._action(buttons, "Cancel", "mTaskCancel", self.tr("Cancel"), self.cancel)
        self.delete_action = self._action(
            buttons, "Delete", "mActionDeleteSelected", self.tr("Take off the list"), self.delete
        )
        self.delete_action.setShortcut(QKeySequence(QKeySequence.StandardKey.Delete))
        self.details_action = self._action(
            buttons, "Details", "mActionPropertiesWidget", self.tr("Details"), self.show_details
        )
        self.copy_action = self._action(
            buttons, "Copy", "mActionEditCopy", self.tr("Copy message"), self.copy_message
        )
        self.copy_action.setShortcut(QKeySequence(QKeySequence.StandardKey.Copy))
        buttons.addStretch(1)
        self.log_action = self._action(
            buttons, "Log", "mActionFileOpen", self.tr("Open the log's folder"), self.open_log
        )

        self.empty_label = QLabel()
        self.empty_label.setObjectName("RestJobsEmpty")
        self.empty_label.setWordWrap(True)
        self.empty_label.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.start_button = QPushButton(self.tr("Start engine"))
        self.start_button.setObjectName("RestJobsStart")
        self.start_button.clicked.connect(self._link.start)
        empty = QWidget()
        empty_column = QVBoxLayout(empty)
        empty_column.addStretch(1)
        empty_column.addWidget(self.empty_label)
        empty_column.addWidget(self.start_button, 0, Qt.AlignmentFlag.AlignHCenter)
        empty_column.addStretch(2)
        self._pages = QStackedWidget()
        self._pages.addWidget(empty)
        self._pages.addWidget(self.table)

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(buttons)
        column.addWidget(self._pages, 1)

    def _action(self, buttons: QHBoxLayout, name: str, icon: str, text: str, slot: Callable[[], None]) -> Any:
        """Make an action with a button of its own; the context menu and the keyboard have it too."""
        action = self._menu.addAction(QgsApplication.getThemeIcon(f"/{icon}.svg"), text)
        action.setObjectName(f"RestJobs{name}")
        action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
        action.triggered.connect(lambda _checked=False: slot())
        self.table.addAction(action)
        button = QToolButton()
        button.setObjectName(f"RestJobs{name}Button")
        button.setDefaultAction(action)
        button.setAutoRaise(True)
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        buttons.addWidget(button)
        return action

    def _open_menu(self, position: QPoint) -> None:
        self._menu.popup(self.table.viewport().mapToGlobal(position))


class _Table(QTreeView):
    """A list whose rows open by double-click and Enter, never by the one click some desktops open with."""

    opened = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.doubleClicked.connect(lambda _index: self.opened.emit())

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open by Enter."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.opened.emit()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Share the width out, so that every column is seen."""
        super().resizeEvent(event)
        for column, share in enumerate(_SHARES):
            self.setColumnWidth(column, int(share * self.viewport().width()))


def _failed(job: dict[str, Any]) -> bool:
    return job["state"] == "failed" and bool(job.get("message"))


def _layer_of(job: dict[str, Any]) -> QgsMapLayer | None:
    """The project's layer that shows a job's result or its growing."""
    for layer in QgsProject.instance().mapLayers().values():
        mine = layer.customProperty(JOB_PROPERTY) == job["job"]
        if layer.isValid() and (mine or layer.source() == job["output"]):
            return layer
    return None
