"""The choice of the area: whole layer, canvas, drawn on the map, polygons of a layer."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsMapLayerProxyModel, QgsVectorLayer
from qgis.gui import QgsMapLayerComboBox
from qgis.PyQt.QtCore import QSignalBlocker, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from rest_qgis.gui.area_tools import DrawnArea

WHOLE, CANVAS, RECTANGLE, POLYGON, LAYER = "whole", "canvas", "rectangle", "polygon", "layer"


class AreaBox(QWidget):
    """A list of the kinds of area, and below it what the chosen kind needs.

    Signals:
        changed: Another area: another kind, another canvas, another drawing, another selection.
    """

    changed = pyqtSignal()

    def __init__(self, interface: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("RestAreaBox")
        self._canvas = interface.mapCanvas()
        self._watched: QgsVectorLayer | None = None
        self.drawn = DrawnArea(self._canvas, self)
        self._build()
        self.kind_combo.currentIndexChanged.connect(self._show_kind)
        self.kind_combo.activated.connect(self._start_drawing)
        self.draw_button.clicked.connect(self._toggle_drawing)
        self.clear_button.clicked.connect(self.drawn.clear)
        self.layer_combo.layerChanged.connect(self._watch)
        self.selected_box.toggled.connect(lambda _on: self._change())
        self.drawn.changed.connect(self._change)
        self.drawn.drawing_ended.connect(lambda: self.draw_button.setChecked(False))
        self._canvas.extentsChanged.connect(self._canvas_moved)
        self._watch(self.layer_combo.currentLayer())
        self._show_kind()

    def kind(self) -> str:
        """Return the chosen kind: ``whole``, ``canvas``, ``rectangle``, ``polygon`` or ``layer``."""
        return str(self.kind_combo.currentData())

    def choose(self, kind: str) -> None:
        """Choose a kind, as a click in the list does but for starting to draw."""
        self.kind_combo.setCurrentIndex(self.kind_combo.findData(kind))

    def trouble(self) -> str:
        """Return why there is no area yet, in a sentence; empty where there is one."""
        if self.kind() in (RECTANGLE, POLYGON) and self.drawn.geometry() is None:
            return self.tr("Draw the area on the map first.")
        if self.kind() == LAYER:
            layer = self.layer()
            if layer is None:
                return self.tr("There is no layer with polygons in this project.")
            if self.only_selected() and layer.selectedFeatureCount() == 0:
                return self.tr("Nothing is selected in “{0}”.").format(layer.name())
        return ""

    def layer(self) -> QgsVectorLayer | None:
        """Return the chosen layer of polygons."""
        return self.layer_combo.currentLayer()

    def only_selected(self) -> bool:
        """Return whether only the layer's selected features count."""
        return self.selected_box.isChecked()

    def close_area(self) -> None:
        """Take the drawn area and its tools off the map. May be called twice."""
        if self._canvas is not None:
            self._canvas.extentsChanged.disconnect(self._canvas_moved)
            self._canvas = None
            self._watch(None)
            self.drawn.close()

    # --- pieces -------------------------------------------------------------------

    def _show_kind(self) -> None:
        kind = self.kind()
        drawing = kind in (RECTANGLE, POLYGON)
        self._draw_row.setVisible(drawing)
        self._layer_row.setVisible(kind == LAYER)
        self.drawn.stop()
        self.drawn.set_shown(drawing)
        self._change()

    def _start_drawing(self, _index: int) -> None:
        """A person who chooses to draw wants to draw."""
        if self.kind() in (RECTANGLE, POLYGON) and self.drawn.geometry() is None:
            self.draw_button.setChecked(True)
            self._toggle_drawing(True)

    def _toggle_drawing(self, on: bool) -> None:
        if not on:
            self.drawn.stop()
            return
        rectangle = self.kind() == RECTANGLE
        self.drawn.draw(self.drawn.rectangle_tool if rectangle else self.drawn.polygon_tool)

    def _canvas_moved(self) -> None:
        if self.kind() == CANVAS:
            self.changed.emit()

    def _watch(self, layer: QgsVectorLayer | None) -> None:
        if self._watched is not None:
            self._watched.selectionChanged.disconnect(self._change)
            self._watched.willBeDeleted.disconnect(self._unwatch)
        self._watched = layer
        if layer is not None:
            layer.selectionChanged.connect(self._change)
            layer.willBeDeleted.connect(self._unwatch)
            with QSignalBlocker(self.selected_box):
                self.selected_box.setChecked(layer.selectedFeatureCount() > 0)
        self._change()

    def _unwatch(self) -> None:
        self._watched = None

    def _change(self, *_selection: Any) -> None:
        drawing = self.kind() in (RECTANGLE, POLYGON)
        self.clear_button.setEnabled(self.drawn.geometry() is not None)
        layer = self._watched
        count = 0 if layer is None else layer.selectedFeatureCount()
        self.selected_box.setText(self.tr("Selected only ({0})").format(count))
        hint = self.trouble()
        if drawing and not hint:
            hint = self.tr("Everything outside the drawn area stays empty.")
        self.hint.setText(hint)
        self.hint.setVisible(bool(hint))
        self.changed.emit()

    def _build(self) -> None:
        self.kind_combo = QComboBox(self)
        self.kind_combo.setObjectName("RestAreaKind")
        self.kind_combo.setToolTip(self.tr("What gets classes; what lies around it is read all the same"))
        for kind, text in (
            (WHOLE, self.tr("Whole layer")),
            (CANVAS, self.tr("Canvas extent")),
            (RECTANGLE, self.tr("Rectangle drawn on the map")),
            (POLYGON, self.tr("Polygon drawn on the map")),
            (LAYER, self.tr("Polygons of a layer")),
        ):
            self.kind_combo.addItem(text, kind)
        self.kind_combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.kind_combo.setMinimumContentsLength(8)
        self.kind_combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

        self.draw_button = QPushButton(self.tr("Draw"), self)
        self.draw_button.setObjectName("RestAreaDraw")
        self.draw_button.setCheckable(True)
        self.draw_button.setToolTip(
            self.tr(
                "Rectangle: press, drag, release. Polygon: click the corners; a right click or a double "
                "click ends, Backspace takes a corner back. Esc gives up."
            )
        )
        self.clear_button = QPushButton(self.tr("Clear"), self)
        self.clear_button.setObjectName("RestAreaClear")
        self._draw_row = QWidget(self)
        draw_row = QHBoxLayout(self._draw_row)
        draw_row.addWidget(self.draw_button, 1)
        draw_row.addWidget(self.clear_button, 1)

        self.layer_combo = QgsMapLayerComboBox(self)
        self.layer_combo.setObjectName("RestAreaLayer")
        self.layer_combo.setFilters(_polygon_filter())
        self.layer_combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.layer_combo.setMinimumContentsLength(8)
        self.selected_box = QCheckBox(self)
        self.selected_box.setObjectName("RestAreaSelected")
        self._layer_row = QWidget(self)
        layer_row = QVBoxLayout(self._layer_row)
        layer_row.addWidget(self.layer_combo)
        layer_row.addWidget(self.selected_box)

        self.hint = QLabel(self)
        self.hint.setObjectName("RestAreaHint")
        self.hint.setWordWrap(True)
        self.hint.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.hint.setStyleSheet("font-style: italic")
        column = QVBoxLayout(self)
        for layout in (draw_row, layer_row, column):
            layout.setContentsMargins(0, 0, 0, 0)
            layout.setSpacing(4)
        for widget in (self.kind_combo, self._draw_row, self._layer_row, self.hint):
            column.addWidget(widget)


def _polygon_filter() -> Any:
    """The filter "polygon layers only", which moved between QGIS versions."""
    try:
        from qgis.core import Qgis

        return Qgis.LayerFilter.PolygonLayer
    except AttributeError:
        return QgsMapLayerProxyModel.Filter.PolygonLayer
