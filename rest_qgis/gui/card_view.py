"""The model card in the dock: what a model reads, what it finds, how good it is."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

from qgis.PyQt.QtCore import QBuffer, QByteArray, QIODevice, Qt
from qgis.PyQt.QtGui import QColor, QPainter, QPixmap
from qgis.PyQt.QtWidgets import QFrame, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

if TYPE_CHECKING:  # that module needs QGIS, this one only Qt
    from rest_qgis.processing.models import Model, ModelClass

_MOST_CLASSES = 24  # chips shown; the legend shows them all
_CHIP = 12  # pixels


class CardView(QFrame):
    """A framed summary of one model that wraps to any width; the rest of its card folds out."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestModelCard")
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._label = _rich_label("RestModelCardText")
        self._rest = _rich_label("RestModelCardRest")
        self.more_button = QToolButton(self)
        self.more_button.setObjectName("RestModelCardMore")
        self.more_button.setText(self.tr("More about this model"))
        self.more_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more_button.setAutoRaise(True)
        self.more_button.setCheckable(True)
        self.more_button.toggled.connect(self._fold)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 4)
        layout.setSpacing(2)
        layout.addWidget(self._label)
        layout.addWidget(self._rest)
        layout.addWidget(self.more_button)
        self.show_text("")

    def show_text(self, text: str) -> None:
        """Show a sentence in place of a card."""
        self._label.setText(f"<i>{escape(text)}</i>")
        self._rest.setText("")
        self.more_button.hide()
        self._rest.hide()

    def show_model(self, model: Model) -> None:
        """Show a model's card."""
        self._label.setText(_paragraphs([self._reads(model), _chips(model.classes)]))
        self._rest.setText(_paragraphs(self._further(model)))
        self._rest.setToolTip(self._tooltip(model))
        self.more_button.show()
        self._fold(self.more_button.isChecked())

    def text(self) -> str:
        """Return the rich text of the whole card, folded or not."""
        return self._label.text() + self._rest.text()

    def _fold(self, shown: bool) -> None:
        self._rest.setVisible(shown)
        self.more_button.setArrowType(Qt.ArrowType.DownArrow if shown else Qt.ArrowType.RightArrow)

    def _reads(self, model: Model) -> str:
        count = self.tr("1 band") if len(model.bands) == 1 else self.tr("{0} bands").format(len(model.bands))
        names = list(model.bands[:_MOST_CLASSES])
        if len(model.bands) > len(names):
            names.append(f"+{len(model.bands) - len(names)}")
        reads = f"<b>{count}</b> {escape(', '.join(names))}"
        if model.resolution is not None:
            expected, smallest, largest = model.resolution
            reads += "<br>" + self.tr("<b>{0} m</b> per pixel (copes with {1} to {2} m)").format(
                f"{expected:g}", f"{smallest:g}", f"{largest:g}"
            )
        return reads

    def _further(self, model: Model) -> list[str]:
        texts = [_score_sentence(self, model)]
        if model.good_for:
            texts.append(self.tr("<b>Good for</b> {0}").format(escape(_lower_first(model.good_for))))
        if model.limits:
            texts.append(self.tr("<b>Limits</b> {0}").format(escape(_lower_first(model.limits))))
        if model.licence:
            texts.append(self.tr("<b>Licence</b> {0}").format(escape(model.licence)))
        return texts

    def _tooltip(self, model: Model) -> str:
        texts = [str(model.score.get(key) or "") for key in ("data", "note")]
        return "".join(f"<p>{escape(text)}</p>" for text in texts if text)


def _rich_label(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.RichText)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def _paragraphs(texts: list[str]) -> str:
    return "".join(f'<p style="margin:0 0 5px 0">{text}</p>' for text in texts if text)


def _score_sentence(view: CardView, model: Model) -> str:
    names = {entry.id: entry.name for entry in model.classes}
    ious = [
        f"{names.get(entry.get('id'), entry.get('id'))} {entry['iou']:.2f}"
        for entry in model.score.get("classes") or []
        if entry.get("iou") is not None
    ]
    if not ious:
        return view.tr("<b>Not tested</b>: the card has no score.")
    return view.tr("<b>Test IoU</b> {0}").format(escape(", ".join(ious)))


def _chips(classes: tuple[ModelClass, ...]) -> str:
    chips = [
        f'<img src="data:image/png;base64,{_chip_png(entry.color)}">&nbsp;{_unbroken(entry.name)}'
        for entry in classes[:_MOST_CLASSES]
    ]
    if len(classes) > _MOST_CLASSES:
        chips.append(f"+{len(classes) - _MOST_CLASSES}")
    return " &nbsp; ".join(chips)


def _unbroken(name: str) -> str:
    return escape(name).replace(" ", "&nbsp;")


def _chip_png(color: str) -> str:
    """A small square as an inline image: text colours alone vanish on a like background."""
    pixmap = QPixmap(_CHIP, _CHIP)
    pixmap.fill(QColor(color))
    painter = QPainter(pixmap)
    painter.setPen(QColor("#777777"))
    painter.drawRect(0, 0, _CHIP - 1, _CHIP - 1)
    painter.end()
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    pixmap.save(buffer, "PNG")
    return base64.b64encode(bytes(data)).decode("ascii")


def _lower_first(text: str) -> str:
    # "Buildings in ..." goes on after "Good for", an abbreviation such as "RGB" stays.
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
