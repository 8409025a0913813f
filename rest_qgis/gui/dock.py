"""The dock: choose a scene, a model and an area; run; watch; cancel."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from qgis.core import QgsMapLayerProxyModel, QgsProcessingUtils, QgsProject
from qgis.gui import QgsDockWidget, QgsFileWidget, QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QRadioButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from rest_qgis.gui.card_view import CardView
from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.wording import progress_line, stage_text
from rest_qgis.processing.desk import Order
from rest_qgis.processing.errors import ModelError, SceneError
from rest_qgis.processing.models import Model, remember_models
from rest_qgis.processing.scene import Window, scene_path, scene_window


class SegmentDock(QgsDockWidget):
    """Segments the chosen layer; the result grows in a layer of its own.

    All widgets stay usable at 320 pixels of width.
    """

    def __init__(self, interface: Any, link: EngineLink) -> None:
        super().__init__(interface.mainWindow())
        self.setObjectName("RestSegmentDock")
        self.setWindowTitle(self.tr("REST segmentation"))
        self._interface = interface
        self._link = link
        self._models: list[Model] = []
        self._order: Order | None = None
        self._job: Any = None
        self._notes: list[str] = []
        self._numbers = itertools.count(1)
        self._build()
        self._slots = (
            (link.models_changed, self._take_models),
            (link.refused, self._show_refusal),
            (link.job_progress, self._show_progress),
            (link.job_done, self._show_done),
            (link.job_failed, self._show_failure),
        )
        for signal, slot in self._slots:
            signal.connect(slot)
        self._show_idle()

    # --- what the user does ---------------------------------------------------

    def run(self) -> None:
        """Start segmenting what is chosen; a choice that does not work gets a sentence."""
        model = self._chosen_model()
        if model is None:
            if self.model_combo.count():
                self._warn(self.tr("Choose a model first."))
            else:
                self._link.start()
                self._warn(self.tr("The engine is starting: press Run again when the models have appeared."))
            return
        layer = self.layer_combo.currentLayer()
        try:
            scene = scene_path(layer)
            window = self._window(scene)
        except SceneError as error:
            self._warn(str(error))
            return
        self._order = Order(
            scene=scene,
            model=model.id,
            output=self.output_widget.filePath().strip() or self._temporary_output(scene, model),
            classes=model.classes,
            title=f"{layer.name()} – {model.name}",
            window=window,
        )
        self._notes.clear()
        self._show_running()
        self._job = self._link.segment(self._order)  # a refusal comes as job_failed

    def cancel(self) -> None:
        """Ask for the end of the running job."""
        if self._job is not None:
            self.cancel_button.setEnabled(False)
            self.status_label.setText(self.tr("Cancelling…"))
            self._job.cancel()

    def close_link(self) -> None:
        """Stop listening to the engine. May be called twice."""
        for signal, slot in self._slots:
            signal.disconnect(slot)
        self._slots = ()

    # --- what the engine says (queued, on the main thread) ----------------------

    def _take_models(self, summaries: list[dict[str, Any]]) -> None:
        chosen = self.model_combo.currentData()
        self._models = []
        for summary in summaries:
            try:
                self._models.append(Model.from_summary(summary))
            except ModelError as error:
                self._warn(str(error))
        remember_models(summaries)
        self.model_combo.clear()
        for model in self._models:
            self.model_combo.addItem(model.name, model.id)
        self.model_combo.setCurrentIndex(max(0, self.model_combo.findData(chosen)))
        self._show_card()

    def _show_refusal(self, code: str, message: str) -> None:
        if not self._models:
            self.card_view.show_text(message)
        self._interface.messageBar().pushCritical("REST", f"{message} ({code})")

    def _show_progress(self, order: Order, progress: Any) -> None:
        if order is not self._order:
            return
        self._show_notes([progress.note])
        if progress.rows > 0 and progress.stage in ("sweep", "writing"):
            self.progress_bar.setRange(0, progress.rows)
            self.progress_bar.setValue(progress.rows_done)
            self.progress_bar.setTextVisible(True)
        else:
            self.progress_bar.setRange(0, 0)
        if self.cancel_button.isEnabled():
            self.status_label.setText(stage_text(progress))
        self.detail_label.setText(progress_line(progress))

    def _show_done(self, order: Order, done: Any) -> None:
        if order is not self._order:
            return
        self._show_notes(done.summary.get("notes") or [])
        seconds = float(done.summary.get("seconds") or 0.0)
        self._show_idle()
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(1)
        self.status_label.setText(self.tr("Done in {0} s").format(f"{seconds:.1f}"))
        self.detail_label.setText(done.output)
        self._interface.messageBar().pushSuccess(
            "REST", self.tr("{0}: segmented in {1} s").format(order.title, f"{seconds:.1f}")
        )

    def _show_failure(self, order: Order, code: str, message: str) -> None:
        if order is not self._order:
            return
        self._show_idle()
        if code == "E_CANCELLED":
            self.status_label.setText(self.tr("Cancelled"))
            self._interface.messageBar().pushInfo("REST", self.tr("The job was cancelled; nothing was kept."))
            return
        self.status_label.setText(message)
        self._interface.messageBar().pushCritical("REST", f"{message} ({code})")

    # --- pieces -----------------------------------------------------------------

    def _window(self, scene: str) -> Window | None:
        if self.whole_button.isChecked():
            return None
        canvas = self._interface.mapCanvas()
        return scene_window(
            scene,
            self.layer_combo.currentLayer().crs(),
            canvas.extent(),
            canvas.mapSettings().destinationCrs(),
            QgsProject.instance().transformContext(),
        )

    def _temporary_output(self, scene: str, model: Model) -> str:
        folder = Path(QgsProcessingUtils.tempFolder())
        stem = re.sub(r"[^\w.-]+", "_", f"{Path(scene).stem}_{Path(model.id).stem}")
        return str(folder / f"{stem}_{next(self._numbers)}.tif")

    def _chosen_model(self) -> Model | None:
        chosen = self.model_combo.currentData()
        return next((model for model in self._models if model.id == chosen), None)

    def _show_card(self) -> None:
        model = self._chosen_model()
        if model is None:
            self.card_view.show_text(self.tr("The models appear when the engine has started."))
        else:
            self.card_view.show_model(model)

    def _show_running(self) -> None:
        self.run_button.setEnabled(False)
        self.cancel_button.setEnabled(True)
        self.progress_bar.setRange(0, 0)
        self.status_label.setText(self.tr("Starting…"))
        self.detail_label.clear()

    def _show_idle(self) -> None:
        self._job = self._order = None
        self.run_button.setEnabled(True)
        self.cancel_button.setEnabled(False)
        self.progress_bar.setRange(0, 1)
        self.progress_bar.setValue(0)
        self.progress_bar.setTextVisible(False)
        self.status_label.setText(self.tr("Ready"))
        self.detail_label.clear()

    def _show_notes(self, notes: list[str]) -> None:
        for note in notes:
            # Progress tells all notes in one text, the summary one by one.
            if note and not any(note in told for told in self._notes):
                self._notes.append(note)
                self._warn(note)

    def _warn(self, text: str) -> None:
        self._interface.messageBar().pushWarning("REST", text)

    # --- layout -------------------------------------------------------------------

    def _build(self) -> None:
        self.layer_combo = QgsMapLayerComboBox()
        self.layer_combo.setObjectName("RestLayer")
        self.layer_combo.setFilters(_raster_filter())
        self.layer_combo.setToolTip(self.tr("The scene: a raster file on this computer"))
        self.model_combo = QComboBox()
        self.model_combo.setObjectName("RestModel")
        self.model_combo.setToolTip(self.tr("The network that finds the classes"))
        for combo in (self.layer_combo, self.model_combo):
            # A long layer name must not widen the dock.
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(8)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.card_view = CardView()
        self.model_combo.currentIndexChanged.connect(self._show_card)

        self.whole_button = QRadioButton(self.tr("Whole layer"))
        self.whole_button.setObjectName("RestAreaWhole")
        self.whole_button.setChecked(True)
        self.canvas_button = QRadioButton(self.tr("Canvas extent"))
        self.canvas_button.setObjectName("RestAreaCanvas")
        self.canvas_button.setToolTip(self.tr("Only the part of the layer the map canvas shows now"))
        area = QHBoxLayout()
        area.setSpacing(10)
        self._area_group = QButtonGroup(self)
        for button in (self.whole_button, self.canvas_button):
            self._area_group.addButton(button)
            area.addWidget(button)
        area.addStretch(1)

        self.output_widget = QgsFileWidget()
        self.output_widget.setObjectName("RestOutput")
        self.output_widget.setStorageMode(QgsFileWidget.StorageMode.SaveFile)
        self.output_widget.setFilter(self.tr("GeoTIFF (*.tif *.tiff)"))
        self.output_widget.setDialogTitle(self.tr("Save the class map as"))
        self.output_widget.lineEdit().setPlaceholderText(self.tr("Temporary file"))
        self.output_widget.setMinimumWidth(120)

        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        form.addRow(self.tr("Layer"), self.layer_combo)
        form.addRow(self.tr("Model"), self.model_combo)
        form.addRow(self.card_view)
        form.addRow(self.tr("Area"), area)
        form.addRow(self.tr("Save as"), self.output_widget)

        self.run_button = QPushButton(self.tr("Run"))
        self.run_button.setObjectName("RestRun")
        self.run_button.setDefault(True)
        self.cancel_button = QPushButton(self.tr("Cancel"))
        self.cancel_button.setObjectName("RestCancel")
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self.cancel)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.cancel_button, 1)

        self.progress_bar = QProgressBar()
        self.progress_bar.setObjectName("RestProgress")
        self.status_label = _wrapping_label("RestStage")
        self.detail_label = _wrapping_label("RestDetail")

        column = QVBoxLayout()
        column.setContentsMargins(9, 9, 9, 9)
        column.setSpacing(8)
        column.addLayout(form)
        column.addLayout(buttons)
        column.addWidget(self.progress_bar)
        column.addWidget(self.status_label)
        column.addWidget(self.detail_label)
        column.addStretch(1)
        content = QWidget()
        content.setObjectName("RestSegmentPanel")
        content.setLayout(column)
        scroll = QScrollArea()
        scroll.setObjectName("RestSegmentScroll")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(content)
        self.setWidget(scroll)
        self.setMinimumWidth(280)
        self._show_card()


def _wrapping_label(name: str) -> QLabel:
    label = QLabel()
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def _raster_filter() -> Any:
    """The filter "rasters only", which moved between QGIS versions."""
    try:
        from qgis.core import Qgis

        return Qgis.LayerFilter.RasterLayer
    except AttributeError:
        return QgsMapLayerProxyModel.Filter.RasterLayer
