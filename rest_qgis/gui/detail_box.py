"""The choice of the ground resolution the network sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.PyQt.QtCore import QSignalBlocker, Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QButtonGroup,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QRadioButton,
    QSizePolicy,
    QWidget,
)

from rest_qgis.gui.wording import resolution_text

_FINEST, _COARSEST = 0.001, 100_000.0  # metres per pixel


class DetailBox(QWidget):
    """The scene's own resolution, or one to resample to; warns where a model was made for another.

    Signals:
        changed: The person chose another resolution.
    """

    changed = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestDetailBox")
        self._scene: float | None = None
        self._model: tuple[float, float, float] | None = None
        self.own_button = QRadioButton(self)
        self.own_button.setObjectName("RestDetailOwn")
        self.own_button.setChecked(True)
        self.resample_button = QRadioButton(self.tr("Resample to"), self)
        self.resample_button.setObjectName("RestDetailResample")
        self.resample_button.setToolTip(
            self.tr(
                "The network sees the scene at this resolution; the result lies on the scene's own pixels"
            )
        )
        self._group = QButtonGroup(self)
        self._group.addButton(self.own_button)
        self._group.addButton(self.resample_button)
        self.spin_box = QDoubleSpinBox(self)
        self.spin_box.setObjectName("RestDetailMetres")
        self.spin_box.setDecimals(3)
        self.spin_box.setRange(_FINEST, _COARSEST)
        self.spin_box.setValue(1.0)
        self.spin_box.setSuffix(self.tr(" m/pixel"))
        self.spin_box.setKeyboardTracking(False)
        self.spin_box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.spin_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.spin_box.setMinimumWidth(100)  # not that of its largest number
        self.spin_box.setEnabled(False)
        self.warning = QLabel(self)
        self.warning.setObjectName("RestDetailWarning")
        self.warning.setWordWrap(True)
        self.warning.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.warning.setStyleSheet("color: #8a1410")
        self.expected_button = QPushButton(self)
        self.expected_button.setObjectName("RestDetailExpected")
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setColumnStretch(1, 1)
        layout.addWidget(self.own_button, 0, 0, 1, 2)
        layout.addWidget(self.resample_button, 1, 0)
        layout.addWidget(self.spin_box, 1, 1)
        layout.addWidget(self.warning, 2, 0, 1, 2)
        layout.addWidget(self.expected_button, 3, 0, 1, 2)
        self.own_button.toggled.connect(self._toggle)
        self.spin_box.valueChanged.connect(lambda _value: self._change())
        self.expected_button.clicked.connect(self.take_expected)
        self._render()

    def clear(self) -> None:
        """Forget the scene's resolution: another scene was chosen."""
        self._scene = None
        self._render()

    def show_model(self, resolution: tuple[float, float, float] | None) -> None:
        """Take what the chosen model was made for: expected, smallest, largest metres per pixel."""
        self._model = resolution
        if resolution is not None and self.own_button.isChecked():
            with QSignalBlocker(self.spin_box):
                self.spin_box.setValue(resolution[0])  # what to resample to, if at all
        self._render()

    def show_plan(self, plan: Mapping[str, Any]) -> None:
        """Take the scene's resolution from a plan, as ``rest-backend plan --json`` prints it."""
        self._scene = plan["ground_resolution_m"]
        self._render()

    def resolution(self) -> float:
        """Return the metres per pixel to resample to; 0 for the scene's own."""
        return 0.0 if self.own_button.isChecked() else self.spin_box.value()

    def take_expected(self) -> None:
        """Choose the resolution the model was made for."""
        if self._model is not None:
            self.spin_box.setValue(self._model[0])
            self.resample_button.setChecked(True)

    def _toggle(self, own: bool) -> None:
        self.spin_box.setEnabled(not own)
        self._change()

    def _change(self) -> None:
        self._render()
        self.changed.emit()

    def _render(self) -> None:
        own = self.tr("Scene's own resolution")
        if self._scene is not None:
            own += f" ({resolution_text(self._scene)})"
        self.own_button.setText(own)
        warning = self._warning()
        self.warning.setText(warning)
        self.warning.setVisible(bool(warning))
        self.expected_button.setVisible(bool(warning))
        if self._model is not None:
            self.expected_button.setText(self.tr("Resample to {0}").format(resolution_text(self._model[0])))

    def _warning(self) -> str:
        seen = self.resolution() or self._scene
        if self._model is None:
            return ""
        expected, smallest, largest = self._model
        if seen is None or smallest * 0.999 <= seen <= largest * 1.001:
            return ""
        return self.tr("The model copes with {0} to {1} per pixel. At {2} expect wrong classes.").format(
            resolution_text(smallest), resolution_text(largest), resolution_text(seen)
        )
