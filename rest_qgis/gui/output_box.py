"""The choice of what is written, and where."""

from __future__ import annotations

import re

from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtWidgets import QCheckBox, QGridLayout, QLabel, QWidget

from rest_qgis.install.folder import results_folder


class OutputBox(QWidget):
    """The class map, and on request confidence and class probabilities; kept for a week without a file.

    Signals:
        changed: Something else is to be written.
    """

    changed = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestOutputBox")
        self.classes_widget = self._file_widget("RestOutput", self.tr("Save the class map as"))
        self.confidence_box = QCheckBox(self.tr("Confidence"), self)
        self.confidence_box.setObjectName("RestConfidence")
        self.confidence_box.setToolTip(
            self.tr("How sure the network is of each pixel, from 0 to 1: its highest softmax")
        )
        self.confidence_widget = self._file_widget("RestConfidenceOutput", self.tr("Save the confidence as"))
        self.probabilities_box = QCheckBox(self.tr("Probabilities"), self)
        self.probabilities_box.setObjectName("RestProbabilities")
        self.probabilities_box.setToolTip(self.tr("The softmax of every class, one band each"))
        self.probabilities_widget = self._file_widget(
            "RestProbabilitiesOutput", self.tr("Save the class probabilities as")
        )
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setColumnStretch(1, 1)
        layout.addWidget(QLabel(self.tr("Class map"), self), 0, 0)
        layout.addWidget(self.classes_widget, 0, 1)
        for row, (box, widget) in enumerate(
            (
                (self.confidence_box, self.confidence_widget),
                (self.probabilities_box, self.probabilities_widget),
            ),
            start=1,
        ):
            layout.addWidget(box, row, 0)
            layout.addWidget(widget, row, 1)
            widget.hide()
            box.toggled.connect(widget.setVisible)
            box.toggled.connect(lambda _on: self.changed.emit())

    def paths(self, stem: str) -> tuple[str, str, str]:
        """Return where to write classes, confidence and probabilities; empty what is not wanted.

        Args:
            stem: What the names of files nobody chose begin with; no other job's.
        """
        # Not QGIS's temporary folder: the job goes on when QGIS closes and takes that with it.
        base = str(results_folder() / re.sub(r"[^\w.-]+", "_", stem))

        def path(widget: QgsFileWidget, product: str) -> str:
            return widget.filePath().strip() or f"{base}{product}.tif"

        return (
            path(self.classes_widget, ""),
            path(self.confidence_widget, "_confidence") if self.confidence_box.isChecked() else "",
            path(self.probabilities_widget, "_probabilities") if self.probabilities_box.isChecked() else "",
        )

    def _file_widget(self, name: str, title: str) -> QgsFileWidget:
        widget = QgsFileWidget(self)
        widget.setObjectName(name)
        widget.setStorageMode(QgsFileWidget.StorageMode.SaveFile)
        widget.setFilter(self.tr("GeoTIFF (*.tif *.tiff)"))
        widget.setDialogTitle(title)
        widget.lineEdit().setPlaceholderText(self.tr("Kept for 7 days"))
        text = self.tr("Where no file is chosen, it is written to {0} and deleted after 7 days.")
        widget.lineEdit().setToolTip(text.format(results_folder()))
        widget.setMinimumWidth(120)
        widget.fileChanged.connect(lambda _path: self.changed.emit())
        return widget
