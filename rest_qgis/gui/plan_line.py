"""The lines above *Run* that say what a job would compute and take."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QFrame, QLabel, QSizePolicy, QVBoxLayout, QWidget

from rest_qgis.gui.wording import plan_details, plan_lines

_RED = "#c62f2f"
_BAND_TROUBLE = "E_BANDS_"  # said by the band table already


class PlanLine(QFrame):
    """Shows a plan, why there is none, or that the engine is off and can be started here.

    Signals:
        start_asked: The person wants the engine started.
    """

    start_asked = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestPlan")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.label = QLabel(self)
        self.label.setObjectName("RestPlanText")
        self.label.setWordWrap(True)
        self.label.setTextFormat(Qt.TextFormat.RichText)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.label.linkActivated.connect(lambda _link: self.start_asked.emit())
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 6)
        layout.addWidget(self.label)

    def show_text(self, text: str) -> None:
        """Show why there is no plan yet."""
        self._show(f"<i>{escape(text)}</i>")

    def show_off(self) -> None:
        """Say that the engine is off, and offer to start it."""
        offer = f'<a href="start">{escape(self.tr("Start the engine"))}</a>'
        self._show(self.tr("The engine is off. {0} to see what this run takes.").format(offer))

    def show_asking(self) -> None:
        """Show that a plan is on its way; the old one goes, it is of something else."""
        self.show_text(self.tr("Planning…"))

    def show_plan(self, plan: Mapping[str, Any]) -> None:
        """Show a plan; what keeps it from working is red, with what would have to change."""
        lines = [escape(line) for line in plan_lines(plan) if line]
        lines += [_red(message) for message in _problems(plan)]
        self._show("<br>".join(lines), plan_details(plan))

    def show_refusal(self, code: str, message: str) -> None:
        """Show why the backend could not plan."""
        self._show(_red(message), [code])

    def text(self) -> str:
        """Return the rich text shown."""
        return self.label.text()

    def _show(self, text: str, details: list[str] | None = None) -> None:
        self.label.setText(text)
        tooltip = "".join(f"<p>{escape(detail)}</p>" for detail in details or [])
        self.label.setToolTip(tooltip)


def lacking(plan: Mapping[str, Any]) -> str:
    """Return what keeps a plan whose bands are known from working, in sentences; empty where it works."""
    return "\n".join(_problems(plan))


def _problems(plan: Mapping[str, Any]) -> list[str]:
    return [
        problem["message"] for problem in plan["problems"] if not problem["code"].startswith(_BAND_TROUBLE)
    ]


def _red(text: str) -> str:
    return f'<span style="color:{_RED}">{escape(text)}</span>'
