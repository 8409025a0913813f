"""The form of a run: its fields from top to bottom, and what they hold."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsMapLayer, QgsMapLayerProxyModel, QgsRasterLayer
from qgis.gui import QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from rest_qgis.gui.area_box import AreaBox
from rest_qgis.gui.band_table import BandTable
from rest_qgis.gui.card_view import CardView
from rest_qgis.gui.detail_box import DetailBox
from rest_qgis.gui.output_box import OutputBox
from rest_qgis.gui.plan_line import PlanLine
from rest_qgis.layers.live_layers import JOB_PROPERTY
from rest_qgis.processing.models import Model


class RunForm(QWidget):
    """Layer, model, bands, area, detail, outputs; the plan line and the buttons below them.

    Signals:
        changed: Something was chosen anew, by a person or because the project changed.
    """

    changed = pyqtSignal()

    def __init__(self, interface: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestSegmentPanel")
        self._interface: Any | None = interface
        self._models: list[Model] = []
        self._build(interface)
        self.layer_combo.layerChanged.connect(self._take_layer)
        self.model_combo.currentIndexChanged.connect(self._take_model)
        for part in (self.band_table, self.area_box, self.detail_box, self.output_box):
            part.changed.connect(self.changed)
        interface.currentLayerChanged.connect(self._follow)
        self._follow()
        self._take_model()

    def show_models(self, models: list[Model]) -> None:
        """Take the list of models; the chosen one stays chosen."""
        chosen = self.model_combo.currentData()
        self._models = models
        self.model_combo.blockSignals(True)
        self.model_combo.clear()
        for model in models:
            self.model_combo.addItem(model.name, model.id)
        self.model_combo.setCurrentIndex(max(0, self.model_combo.findData(chosen)) if models else -1)
        self.model_combo.blockSignals(False)
        if self.model_combo.currentData() == chosen and self.model() is not None:
            self.card_view.show_model(self.model())
            self.changed.emit()
        else:
            self._take_model()

    def layer(self) -> QgsRasterLayer | None:
        """Return the chosen layer."""
        return self.layer_combo.currentLayer()

    def model(self) -> Model | None:
        """Return the chosen model; None before the engine has told its models."""
        chosen = self.model_combo.currentData()
        return next((model for model in self._models if model.id == chosen), None)

    def trouble(self) -> str:
        """Return why a job cannot be run as the form is filled in, in a sentence; empty where it can."""
        if self.layer() is None:
            return self.tr("Add a raster layer to the project, and choose it.")
        if not self.layer().isValid():
            text = self.tr("The layer “{0}” cannot be read; repair its source first.")
            return text.format(self.layer().name())
        if self.model() is None:
            return self.tr("The models appear when the engine has started.")
        return self.band_table.trouble() or self.area_box.trouble()

    def show_plan(self, plan: dict[str, Any]) -> None:
        """Fill in what a plan tells of bands and resolution, and the plan line."""
        self.band_table.show_plan(plan)
        self.detail_box.show_plan(plan)
        self.plan_line.show_plan(plan)

    def close_form(self) -> None:
        """Stop following QGIS. May be called twice."""
        if self._interface is not None:
            self._interface.currentLayerChanged.disconnect(self._follow)
            self._interface = None
            self.area_box.close_area()

    # --- pieces -----------------------------------------------------------------------

    def _follow(self, *_layer: Any) -> None:
        """Choose the active layer where it is imagery; results are looked at, not segmented again."""
        layer = None if self._interface is None else self._interface.activeLayer()
        if isinstance(layer, QgsRasterLayer) and not layer.customProperty(JOB_PROPERTY):
            self.layer_combo.setLayer(layer)

    def _take_layer(self, _layer: QgsMapLayer | None) -> None:
        self.band_table.clear()
        self.detail_box.clear()
        self.changed.emit()

    def _take_model(self) -> None:
        model = self.model()
        self.band_table.clear()
        self.detail_box.show_model(None if model is None else model.resolution)
        if model is None:
            self.card_view.show_text(self.tr("The models appear when the engine has started."))
        else:
            self.card_view.show_model(model)
        self.changed.emit()

    def _build(self, interface: Any) -> None:
        self.layer_combo = QgsMapLayerComboBox(self)
        self.layer_combo.setObjectName("RestLayer")
        self.layer_combo.setFilters(_raster_filter())
        self.layer_combo.setToolTip(self.tr("The scene; follows the active layer"))
        self.model_combo = QComboBox(self)
        self.model_combo.setObjectName("RestModel")
        self.model_combo.setToolTip(self.tr("The network that finds the classes"))
        for combo in (self.layer_combo, self.model_combo):
            # A long layer name must not widen the dock.
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(8)
            combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.card_view = CardView(self)
        self.band_table = BandTable(self)
        self.area_box = AreaBox(interface, self)
        self.detail_box = DetailBox(self)
        self.output_box = OutputBox(self)
        self.plan_line = PlanLine(self)
        self.preview_button = QPushButton(self.tr("Preview here"), self)
        self.preview_button.setObjectName("RestPreview")
        self.run_button = QPushButton(self.tr("Run"), self)
        self.run_button.setObjectName("RestRun")
        self.run_button.setDefault(True)

        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        form.setVerticalSpacing(8)
        form.addRow(self.tr("Layer"), self.layer_combo)
        form.addRow(self.tr("Model"), self.model_combo)
        form.addRow(self.card_view)
        form.addRow(self.band_table)
        form.addRow(self.tr("Area"), self.area_box)
        form.addRow(self.tr("Detail"), self.detail_box)
        form.addRow(self.tr("Outputs"), self.output_box)
        buttons = QHBoxLayout()
        buttons.addWidget(self.preview_button, 1)
        buttons.addWidget(self.run_button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(9, 9, 9, 9)
        column.setSpacing(8)
        column.addLayout(form)
        column.addWidget(self.plan_line)
        column.addLayout(buttons)
        column.addStretch(1)


def _raster_filter() -> Any:
    """The filter "rasters only", which moved between QGIS versions."""
    try:
        from qgis.core import Qgis

        return Qgis.LayerFilter.RasterLayer
    except AttributeError:
        return QgsMapLayerProxyModel.Filter.RasterLayer
