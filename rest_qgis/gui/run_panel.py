"""The tab "Segment": the form, its plan, and the one job that is run from here."""

from __future__ import annotations

import time
from typing import Any

from qgis.core import QgsApplication, QgsRasterLayer
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget

from rest_qgis.gui.draft import Draft, preview_trouble
from rest_qgis.gui.jobs_table import UNFINISHED
from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.messages import Messages
from rest_qgis.gui.plan_line import lacking
from rest_qgis.gui.preparation import Preparation
from rest_qgis.gui.run_form import RunForm
from rest_qgis.gui.status_strip import StatusStrip
from rest_qgis.processing.desk import Order
from rest_qgis.processing.errors import ModelError, OrderError
from rest_qgis.processing.models import Model, remember_models
from rest_qgis.processing.scene import needs_copy

PLAN_MILLISECONDS = 400  # after the last change, before a plan is asked for
RETRY_MILLISECONDS = 5000  # until a plan is asked for again that did not fit: room may have been made
_BAND_COPY = 16_000_000  # values of a layer that is no file, up to which it is copied to see its bands
_ENGINE_OFF = ("stopped", "failed")


class RunPanel(QWidget):
    """Segments the chosen layer; the result grows in a layer of its own.

    Usable at 320 pixels of width; scrolls where the screen is low.
    """

    def __init__(self, interface: Any, link: EngineLink, messages: Messages, strip: StatusStrip) -> None:
        super().__init__()
        self.setObjectName("RestRunPanel")
        self._canvas = interface.mapCanvas()
        self._link = link
        self._messages = messages
        self._strip = strip
        self._order: Order | None = None  # the job run from here
        self._job: Any = None
        self._pressed = 0.0  # when, by time.monotonic()
        self._notes: list[str] = []
        self._making: Preparation | None = None  # of the job
        self._planning: Preparation | None = None
        self._copied = False  # the plan under way is of a copy, and tells of bands alone
        self._fresh = False  # nothing was chosen anew since the plan under way was asked for
        self._lacking = ""  # what the newest plan says that memory or disk lack; empty where it fits
        self.form = RunForm(interface, self)
        self._timer = self._plan_timer("RestPlanTimer", PLAN_MILLISECONDS)
        self._retry = self._plan_timer("RestPlanRetryTimer", RETRY_MILLISECONDS)
        self._lay_out()
        self.form.changed.connect(self._change)
        self.form.plan_line.start_asked.connect(link.start)
        self.form.run_button.clicked.connect(self.run)
        self.form.preview_button.clicked.connect(self.preview)
        strip.cancel_asked.connect(self.cancel)
        self._slots = (
            (link.state_changed, self._take_state),
            (link.jobs_changed, self._show_engine),
            (link.models_changed, self._take_models),
            (link.refused, self._show_refusal),
            (link.plan_changed, self._take_plan),
            (link.plan_refused, self._take_plan_refusal),
            (link.job_progress, self._show_progress),
            (link.job_done, self._show_done),
            (link.job_failed, self._show_failure),
            (self._canvas.extentsChanged, self._show_buttons),
        )
        for signal, slot in self._slots:
            signal.connect(slot)
        self._change()

    # --- what the user does ---------------------------------------------------

    def run(self) -> None:
        """Start segmenting what is chosen; a choice that does not work gets a sentence."""
        self._start(preview=False)

    def preview(self) -> None:
        """Segment one window at the centre of the canvas."""
        self._start(preview=True)

    def cancel(self) -> None:
        """Ask for the end of the job that was run from here."""
        if self._making is not None:
            self._making.cancel()
        elif self._job is not None:
            self._job.cancel()

    def close_link(self) -> None:
        """Stop listening to the engine and to QGIS. May be called twice."""
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self._slots = ()
        self._timer.stop()
        self._retry.stop()
        for task in (self._making, self._planning):
            if task is not None:
                task.leave()
        self._making = self._planning = None
        self.form.close_form()

    # --- the plan ----------------------------------------------------------------

    def _change(self) -> None:
        """What was planned is of something else now."""
        self._fresh = False
        self._lacking = ""
        self._retry.stop()
        self._show_buttons()
        self._show_no_plan()
        self._timer.start()

    def _show_no_plan(self) -> None:
        line = self.form.plan_line
        trouble = self.form.trouble()
        if self._link.state in _ENGINE_OFF:
            line.show_off()
        elif trouble:
            line.show_text(trouble)
        else:
            line.show_asking()

    def showEvent(self, event: Any) -> None:
        """Ask for what was not asked while nobody looked."""
        super().showEvent(event)
        if not self._fresh or self._lacking:
            self._timer.start()

    def _ask_plan(self) -> None:
        looked_at = self.isVisibleTo(self.window())
        if not looked_at or self._link.state != "ready" or self.form.trouble():
            return
        if self._planning is not None:
            self._planning.leave()
            self._planning = None
        self._fresh = True
        layer = self.form.layer()
        self._copied = needs_copy(layer)
        if self._copied:
            self.form.plan_line.show_text(self._about_copy(layer))
            if not 0 < layer.width() * layer.height() * layer.bandCount() <= _BAND_COPY:
                return
        try:
            draft = Draft.of(self.form, self._canvas, whole=self._copied)
        except OrderError as error:
            self._take_plan_refusal(error.code, error.message)
            return
        self._planning = Preparation(self.tr("REST: plan"), draft.plannable, None, self._plan_ready)
        QgsApplication.taskManager().addTask(self._planning)

    def _plan_ready(self, task: Preparation) -> None:
        if task is not self._planning:
            return
        self._planning = None
        if not self._fresh:
            return
        if task.order is not None:
            self._link.plan(task.order)
        elif task.error is not None:
            self._take_plan_refusal(task.error.code, task.error.message)

    def _take_plan(self, plan: dict[str, Any]) -> None:
        if self._fresh:
            self.form.show_plan(plan)
            self._lacking = "" if self._copied else lacking(plan)
            if self._lacking:
                self._retry.start()
            if self._copied:
                self.form.plan_line.show_text(self._about_copy(self.form.layer()))
            self._show_buttons()

    def _take_plan_refusal(self, code: str, message: str) -> None:
        if self._fresh:
            self.form.plan_line.show_refusal(code, message)
            self._lacking = ""
            self._show_buttons()

    def _about_copy(self, layer: QgsRasterLayer) -> str:
        text = self.tr("This layer is no file: what is wanted of it is copied first, then planned and run.")
        if layer.width() > 0:
            text += " " + self.tr("It has {0} × {1} pixels.").format(layer.width(), layer.height())
        return text

    # --- the job -------------------------------------------------------------------

    def _start(self, preview: bool) -> None:
        if self._busy or self.form.trouble():
            return
        self._notes.clear()
        self._pressed = time.monotonic()
        try:
            draft = Draft.of(self.form, self._canvas, preview)
        except OrderError as error:
            self._messages.error(error.code, error.message)
            return
        self._making = Preparation(
            self.tr("REST: {0}").format(draft.order.title),
            lambda task: draft.runnable(self._link.inbox, task),
            self._show_copying,
            self._order_ready,
        )
        QgsApplication.taskManager().addTask(self._making)
        self._strip.show_work(self.tr("Starting…"))
        self._show_buttons()

    def _show_copying(self, share: float) -> None:
        self._strip.show_work(self.tr("Copying the layer…"), share)

    def _order_ready(self, task: Preparation) -> None:
        if task is not self._making:
            return
        self._making = None
        if task.order is None:
            self._end()
            if task.error is None:
                self._strip.show_idle(self.tr("Cancelled"))
            else:
                self._strip.show_idle(task.error.message)
                self._messages.error(task.error.code, task.error.message)
            return
        self._note(list(task.notes))
        self._order = task.order
        self._strip.show_work(self.tr("Starting…"))
        self._job = self._link.segment(task.order)  # a refusal comes as job_failed

    # --- what the engine says, on the main thread -----------------------------------

    def _take_state(self, _state: str, _message: str) -> None:
        self._show_engine()
        self._change()

    def _show_engine(self, *_jobs: Any) -> None:
        """Jobs of others, and those that came back, keep the engine busy too."""
        unfinished = any(job["state"] in UNFINISHED for job in self._link.jobs)
        self._strip.show_engine("busy" if unfinished and self._link.state == "ready" else self._link.state)

    def _take_models(self, summaries: list[dict[str, Any]]) -> None:
        models = []
        for summary in summaries:
            try:
                models.append(Model.from_summary(summary))
            except ModelError as error:
                self._messages.warning(str(error))
        remember_models(summaries)
        self.form.show_models(models)

    def _show_refusal(self, code: str, message: str) -> None:
        if self.form.model() is None:
            self.form.card_view.show_text(message)
        self._messages.error(code, message)

    def _show_progress(self, order: Order, progress: Any) -> None:
        if order is self._order:
            self._note([progress.note])
            self._strip.show_progress(progress)

    def _show_done(self, order: Order, done: Any) -> None:
        if order is not self._order:
            return
        self._note(done.summary.get("notes") or [])
        if order.preview:
            seconds = f"{time.monotonic() - self._pressed:.1f}"
            text = self.tr("Preview in {0} s").format(seconds)
        else:
            seconds = f"{float(done.summary.get('seconds') or 0.0):.1f}"
            text = self.tr("Done in {0} s").format(seconds)
            told = self.tr("{0}: segmented in {1} s").format(order.title, seconds)
            self._messages.success(told, "\n".join(self._notes))
        self._end()
        self._strip.show_idle(text, "" if order.preview else done.output, full=True)

    def _show_failure(self, order: Order, code: str, message: str) -> None:
        if order is not self._order:
            return
        self._end()
        if code == "E_CANCELLED":
            self._strip.show_idle(self.tr("Cancelled"))
            self._messages.info(self.tr("The job was cancelled; nothing was kept."))
        elif code == "E_ENGINE_STOPPED":  # somebody's wish; the job comes back with the engine
            self._strip.show_idle()
            self._messages.info(message, order.title)
        else:
            self._strip.show_idle(message)
            self._messages.error(code, message, order.title)

    # --- pieces -----------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        return self._making is not None or self._order is not None

    def _end(self) -> None:
        self._order = self._job = None
        self._show_buttons()

    def _show_buttons(self) -> None:
        trouble = self.tr("A job is running.") if self._busy else self.form.trouble()
        self.form.run_button.setEnabled(not (trouble or self._lacking))
        self.form.run_button.setToolTip(trouble or self._lacking or self.tr("Segment the area"))
        trouble = trouble or preview_trouble(self.form.layer(), self._canvas)
        self.form.preview_button.setEnabled(not trouble)
        self.form.preview_button.setToolTip(
            trouble or self.tr("Segment 512 × 512 pixels of the scene at the centre of the map")
        )

    def _note(self, notes: list[str]) -> None:
        for note in notes:
            # Progress tells all notes in one text, the summary one by one.
            if note and not any(note in told for told in self._notes):
                self._notes.append(note)
                self._messages.warning(note)

    def _plan_timer(self, name: str, milliseconds: int) -> QTimer:
        timer = QTimer(self)
        timer.setObjectName(name)
        timer.setSingleShot(True)
        timer.setInterval(milliseconds)
        timer.timeout.connect(self._ask_plan)
        return timer

    def _lay_out(self) -> None:
        scroll = QScrollArea(self)
        scroll.setObjectName("RestSegmentScroll")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidget(self.form)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scroll)
