"""The strip at the dock's lower edge: how the engine is, how far the job is, *Cancel*."""

from __future__ import annotations

from typing import Any

from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QWidget,
)

from rest_qgis.gui.wording import engine_text, progress_line, stage_text


class StatusStrip(QFrame):
    """Always visible; shows one job at a time.

    Signals:
        cancel_asked: The person pressed *Cancel*.
    """

    cancel_asked = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestStatusStrip")
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.status_label = _label("RestStage")
        self.detail_label = _label("RestDetail")
        self.progress_bar = QProgressBar(self)
        self.progress_bar.setObjectName("RestProgress")
        self.progress_bar.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.cancel_button = QPushButton(self.tr("Cancel"), self)
        self.cancel_button.setObjectName("RestCancel")
        self.cancel_button.clicked.connect(self._cancel)
        self._engine = "stopped"
        layout = QGridLayout(self)
        layout.setContentsMargins(9, 4, 9, 6)
        layout.setVerticalSpacing(2)
        layout.addWidget(self.status_label, 0, 0, 1, 2)
        layout.addWidget(self.progress_bar, 1, 0)
        layout.addWidget(self.cancel_button, 1, 1)
        layout.addWidget(self.detail_label, 2, 0, 1, 2)
        layout.setColumnStretch(0, 1)
        self.show_idle()

    def show_engine(self, state: str) -> None:
        """Take a new state of the engine; said while no job is shown.

        What came of the last job stays where the engine only goes from one job to the next.
        """
        former, self._engine = self._engine, state
        at_work = {former, state} <= {"ready", "busy"}
        if not self._busy and (self._tells_engine or not at_work):
            self.show_idle()

    @property
    def busy(self) -> bool:
        """Whether a job is shown that has not ended."""
        return self._busy

    def show_idle(self, text: str = "", detail: str = "", full: bool = False) -> None:
        """Show that nothing runs.

        Args:
            text: What came of the last job; by default how the engine is.
            detail: More about that.
            full: Whether the last job was done.
        """
        self._busy = False
        self._tells_engine = not text
        self.cancel_button.setEnabled(False)
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(1 if full else 0)
        self.progress_bar.setTextVisible(False)
        self.status_label.setText(text or self.tr("Engine: {0}").format(engine_text(self._engine, None)))
        self._detail(detail)

    def show_work(self, text: str, done: float | None = None) -> None:
        """Show work that is not a running job yet.

        Args:
            text: What is done.
            done: Share of it that is done, 0 to 1; None while unknown.
        """
        if not self._busy:
            self.cancel_button.setEnabled(True)
        self._busy = True
        self.progress_bar.setRange(0, 0 if done is None else 100)
        self.progress_bar.setTextVisible(done is not None)
        if done is not None:
            self.progress_bar.setValue(round(100 * done))
        if self.cancel_button.isEnabled():
            self.status_label.setText(text)
        self._detail("")

    def show_progress(self, progress: Any) -> None:
        """Show how far a job is."""
        counted = progress.rows > 0 and progress.stage in ("sweep", "writing")
        self.show_work(stage_text(progress), progress.rows_done / progress.rows if counted else None)
        self._detail(progress_line(progress))

    def _cancel(self) -> None:
        self.cancel_button.setEnabled(False)
        self.status_label.setText(self.tr("Cancelling…"))
        self.cancel_asked.emit()

    def _detail(self, text: str) -> None:
        self.detail_label.setText(text)
        self.detail_label.setVisible(bool(text))


def _label(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label
