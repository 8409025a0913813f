"""The table that says which band of the scene each band of the model reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qgis.PyQt.QtCore import QEvent, QObject, Qt, QTimer, pyqtSignal
from qgis.PyQt.QtGui import QBrush, QColor, QPalette, QStandardItem, QStandardItemModel
from qgis.PyQt.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from rest_qgis.gui.wording import band_text, match_text

_SHOWN_ROWS = 6  # more of them scroll
_MODEL, _SCENE, _HOW = range(3)
_ROWS_AT_ONCE = 24  # made in one go
_NAMED = 8  # bands in a sentence
_MARGIN = 14  # pixels beside a text, both sides together
_RED, _DARK_RED = QColor("#f8d0cc"), QColor("#8a1410")


@dataclass
class Row:
    """One band of the model.

    Attributes:
        model: Its name.
        found: The scene's band the backend found, from 1; None where it found none.
        how: How it found it: ``name``, ``wavelength``, ``colour``, ``order``, ``missing``.
        reason: A sentence about that.
        sure: Whether the backend is sure.
        chosen: The band a person chose or confirmed; None where nobody did.
    """

    model: str
    found: int | None
    how: str
    reason: str
    sure: bool
    chosen: int | None = None

    @property
    def band(self) -> int | None:
        """The band that is read."""
        return self.found if self.chosen is None else self.chosen


class BandTable(QWidget):
    """One row a band of the model: its name, a list of the scene's bands, how it was matched.

    A row nobody is sure of is red. Rows without a band and a band in two rows keep a job from
    being run; an assumed order does not, but stays red until a person confirms or changes it.

    Signals:
        changed: A person chose or confirmed bands.
    """

    changed = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestBands")
        self._rows: list[Row] = []
        self._scene: list[Mapping[str, Any]] = []
        self._combos: list[QComboBox] = []
        self._filling = QTimer(self)
        self._filling.setObjectName("RestBandTimer")
        self._filling.setSingleShot(True)
        self._filling.timeout.connect(self._fill)
        self._list = QStandardItemModel(self)  # one list of bands for all rows: a scene may have hundreds
        self.table = QTableWidget(0, 3, self)
        self.table.setObjectName("RestBandTable")
        self.table.setHorizontalHeaderLabels([self.tr("Model"), self.tr("Scene's band"), self.tr("By")])
        self.table.verticalHeader().hide()
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.horizontalHeader()
        header.setSectionsClickable(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)  # to their contents once they are filled
        header.setSectionResizeMode(_SCENE, QHeaderView.ResizeMode.Stretch)
        self.line = QLabel(self)
        self.line.setObjectName("RestBandLine")
        self.line.setWordWrap(True)
        self.line.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.line.setStyleSheet(f"color: {_DARK_RED.name()}")
        self.confirm_button = QPushButton(self.tr("These bands are right"), self)
        self.confirm_button.setObjectName("RestBandConfirm")
        self.confirm_button.clicked.connect(self.confirm)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addWidget(self.line)
        layout.addWidget(self.confirm_button)
        self.clear()

    def clear(self) -> None:
        """Forget everything: another scene or another model was chosen."""
        self._rows, self._scene = [], []
        self._build()

    def show_plan(self, plan: Mapping[str, Any]) -> None:
        """Take the bands of a plan; what a person chose stays chosen.

        Args:
            plan: A plan, as ``rest-backend plan --json`` prints it.
        """
        rows = [
            Row(match["model"], match["band"], match["how"], match["reason"], match["sure"])
            for match in plan["bands"]
        ]
        names = [row.model for row in rows]
        known = names == [row.model for row in self._rows] and plan["scene_bands"] == self._scene
        if known and all(row.how == "given" for row in rows):
            return  # what it was asked with: who found which band is known already
        if known:
            for row, old in zip(rows, self._rows):
                row.chosen = old.chosen
            if rows == self._rows:
                return
        self._rows, self._scene = rows, list(plan["scene_bands"])
        self._build()

    def bands(self) -> tuple[int, ...]:
        """Return the bands to ask for, from 1, in the model's order.

        Returns:
            Empty while nobody chose any, which leaves the matching to the backend, and while a
            row has no band.
        """
        bands = [row.band for row in self._rows if row.band is not None]
        chosen = any(row.chosen is not None for row in self._rows)
        return tuple(bands) if chosen and len(bands) == len(self._rows) else ()

    def trouble(self) -> str:
        """Return why a job cannot be run with these bands, in a sentence; empty where it can."""
        missing = [row.model for row in self._rows if row.band is None]
        if missing:
            return self.tr("Choose a band of the scene for: {0}.").format(_listed(missing))
        twice = sorted(self._twice())
        if twice:
            text = self.tr("A band can be read only once; chosen twice: {0}.")
            return text.format(_listed([str(band) for band in twice]))
        return ""

    def doubts(self) -> list[str]:
        """Return the model's bands that run on an assumption nobody has confirmed."""
        return [
            row.model for row in self._rows if row.chosen is None and row.found is not None and not row.sure
        ]

    def confirm(self) -> None:
        """Take every band as it is shown for a person's choice."""
        for row in self._rows:
            row.chosen = row.band
        self._paint()
        self.changed.emit()

    def combo(self, row: int) -> QComboBox:
        """Return the list of bands of a row."""
        return self._combos[row]

    # --- pieces -----------------------------------------------------------------------

    def _twice(self) -> set[int]:
        counts = Counter(row.band for row in self._rows if row.band is not None)
        return {band for band, count in counts.items() if count > 1}

    def _build(self) -> None:
        self._list.clear()
        nothing = QStandardItem(self.tr("choose…"))
        nothing.setFlags(Qt.ItemFlag.NoItemFlags)
        self._list.appendRow(nothing)
        for band in self._scene:
            item = QStandardItem(band_text(band["number"], band["name"], band["wavelength_nm"]))
            item.setData(band["number"], Qt.ItemDataRole.UserRole)
            self._list.appendRow(item)
        self.table.setRowCount(0)
        self.table.setRowCount(len(self._rows))
        self._combos = []
        self._fill()
        if self._combos:
            self.table.verticalHeader().setDefaultSectionSize(self._combos[0].sizeHint().height())
        self._fit_height()
        self.setVisible(bool(self._rows))
        self._paint()

    def _fill(self) -> None:
        """Make some rows, and the others when QGIS has nothing else to do: a model may read hundreds."""
        first = len(self._combos)
        for number in range(first, min(len(self._rows), first + _ROWS_AT_ONCE)):
            for column in (_MODEL, _SCENE, _HOW):
                item = QTableWidgetItem(self._rows[number].model if column == _MODEL else "")
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
                self.table.setItem(number, column, item)
            self._combos.append(self._make_combo(number))
            self.table.setCellWidget(number, _SCENE, self._combos[number])
        self._paint_rows(first)
        if len(self._combos) < len(self._rows):
            self._filling.start()

    def _make_combo(self, number: int) -> QComboBox:
        combo = QComboBox(self.table)
        combo.setObjectName(f"RestBand{number}")
        combo.setModel(self._list)
        combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        combo.setMinimumContentsLength(6)
        combo.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        combo.installEventFilter(self)
        band = self._rows[number].band
        combo.setCurrentIndex(0 if band is None else combo.findData(band))
        combo.activated.connect(lambda _index: self._choose(number))
        return combo

    def _choose(self, number: int) -> None:
        band = self._combos[number].currentData()
        if band is not None:
            self._rows[number].chosen = int(band)
            self._paint()
            self.changed.emit()

    def _paint(self) -> None:
        self._paint_rows(0)
        doubts = self.doubts()
        trouble = self.trouble()
        if not trouble and doubts:
            text = self.tr("Assumed from the order of the bands, please check: {0}.")
            trouble = text.format(_listed(doubts))
            self.confirm_button.show()
        else:
            self.confirm_button.hide()
        for column in (_MODEL, _HOW):
            self.table.setColumnWidth(column, self._wide_enough(column))
        self.line.setText(trouble)
        self.line.setVisible(bool(trouble))

    def _paint_rows(self, first: int) -> None:
        twice = self._twice()
        for number in range(first, len(self._combos)):
            row = self._rows[number]
            red, told = self._judge(row, twice)
            tooltip = told or row.reason
            self.table.item(number, _HOW).setText(self._how(row, twice))
            for column in (_MODEL, _SCENE, _HOW):
                item = self.table.item(number, column)
                item.setToolTip(tooltip)
                item.setBackground(QBrush(_RED) if red else QBrush())
                item.setForeground(QBrush(_DARK_RED) if red else QBrush())
            combo = self._combos[number]
            combo.setToolTip(tooltip)
            palette = self.palette()
            if red:
                palette.setColor(QPalette.ColorRole.ButtonText, _DARK_RED)
                palette.setColor(QPalette.ColorRole.Text, _DARK_RED)
            combo.setPalette(palette)

    def _judge(self, row: Row, twice: set[int]) -> tuple[bool, str]:
        """Return whether a row is red, and why."""
        if row.band is None:
            return True, row.reason or self.tr("No band of the scene was found for “{0}”.").format(row.model)
        if row.band in twice:
            return True, self.tr("Another row reads this band too.")
        if row.chosen is not None:
            return False, self.tr("You chose this band.")
        return not row.sure, row.reason

    def _wide_enough(self, column: int) -> int:
        """Width of a column, in pixels, for all its texts and a margin."""
        twice = self._twice()
        texts = {row.model if column == _MODEL else self._how(row, twice) for row in self._rows}
        texts.add(self.table.horizontalHeaderItem(column).text())
        return max(self.fontMetrics().horizontalAdvance(text) for text in texts) + _MARGIN

    def _how(self, row: Row, twice: set[int]) -> str:
        if row.band in twice:
            return self.tr("twice")
        return match_text("given" if row.chosen is not None else row.how)

    def _fit_height(self) -> None:
        rows = min(len(self._rows), _SHOWN_ROWS)
        height = self.table.horizontalHeader().sizeHint().height() + 2 * self.table.frameWidth()
        height += sum(self.table.rowHeight(row) for row in range(rows))
        if len(self._rows) > _SHOWN_ROWS:
            height += self.table.rowHeight(0) // 2  # half a row says that there are more
        self.table.setFixedHeight(height)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Leave the wheel to the panel: scrolling past a list must not choose another band."""
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QComboBox) and not watched.hasFocus():
            event.ignore()
            return True
        return super().eventFilter(watched, event)


def _listed(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" (+{more})" if more > 0 else "")
