"""Map tools that draw the area to segment, and the area that stays on the map."""

from __future__ import annotations

from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsWkbTypes,
)
from qgis.gui import QgsMapCanvas, QgsMapTool, QgsRubberBand
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QPoint, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor

_STROKE, _FILL = QColor(215, 48, 31), QColor(215, 48, 31, 40)
_LEAST_SIDE = 3  # pixels of the screen: less is a click, not a rectangle


class DrawTool(QgsMapTool):
    """Draws one polygon. Esc gives up, and with it the tool.

    Signals:
        drawn: A polygon is complete. Argument: the geometry, in the canvas' coordinate system.
        left: The person gave up.
    """

    drawn = pyqtSignal(object)
    left = pyqtSignal()

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self._band: QgsRubberBand | None = None
        self.setCursor(Qt.CursorShape.CrossCursor)

    def keyPressEvent(self, event: Any) -> None:
        """Give up on Esc."""
        if event.key() == Qt.Key.Key_Escape:
            event.ignore()  # as QGIS's own tools do: its shortcut for the key is not for now
            self._reset()
            self.left.emit()

    def deactivate(self) -> None:
        """Another tool takes over: what is half drawn goes."""
        self._reset()
        super().deactivate()

    def _reset(self) -> None:
        remove_band(self.canvas(), self._band)
        self._band = None

    def _show(self, points: list[QgsPointXY]) -> None:
        if self._band is None:
            self._band = make_band(self.canvas())
        self._band.setToGeometry(QgsGeometry.fromPolygonXY([points]), None)

    def _finish(self, points: list[QgsPointXY]) -> None:
        self._reset()
        self.drawn.emit(QgsGeometry.fromPolygonXY([[*points, points[0]]]))


class RectangleTool(DrawTool):
    """Press, drag, release. Its sides are the screen's, also where the canvas is turned."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self._start: QPoint | None = None

    def canvasPressEvent(self, event: Any) -> None:
        """Set the first corner."""
        if event.button() == Qt.MouseButton.LeftButton:
            self._start = event.pos()

    def canvasMoveEvent(self, event: Any) -> None:
        """Move the opposite corner."""
        if self._start is not None:
            self._show(self._corners(self._start, event.pos()))

    def canvasReleaseEvent(self, event: Any) -> None:
        """Set the opposite corner."""
        start, self._start = self._start, None
        if start is None or event.button() != Qt.MouseButton.LeftButton:
            return
        end = event.pos()
        if min(abs(end.x() - start.x()), abs(end.y() - start.y())) < _LEAST_SIDE:
            self._reset()
            return
        self._finish(self._corners(start, end))

    def _reset(self) -> None:
        self._start = None
        super()._reset()

    def _corners(self, start: QPoint, end: QPoint) -> list[QgsPointXY]:
        screen = [(start.x(), start.y()), (end.x(), start.y()), (end.x(), end.y()), (start.x(), end.y())]
        return [self.toMapCoordinates(QPoint(x, y)) for x, y in screen]


class PolygonTool(DrawTool):
    """A click a corner; a right click or a double click ends, Backspace takes the last corner back."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self._corners: list[QgsPointXY] = []
        self._double = False

    def canvasReleaseEvent(self, event: Any) -> None:
        """Add a corner, or end."""
        double, self._double = self._double, False
        if double or event.button() == Qt.MouseButton.RightButton:
            if len(self._corners) >= 3:
                self._finish(self._corners[:])
        elif event.button() == Qt.MouseButton.LeftButton:
            point = self.toMapCoordinates(event.pos())
            self._corners.append(point)
            self._show([*self._corners, point])

    def canvasDoubleClickEvent(self, event: Any) -> None:
        """End at the last corner, once the button is up: its release must not reach the next tool."""
        self._double = True

    def canvasMoveEvent(self, event: Any) -> None:
        """Show the polygon with the pointer as its next corner."""
        if self._corners:
            self._show([*self._corners, self.toMapCoordinates(event.pos())])

    def keyPressEvent(self, event: Any) -> None:
        """Take back a corner on Backspace, give up on Esc."""
        if event.key() == Qt.Key.Key_Backspace:
            event.ignore()
            if self._corners:
                self._corners.pop()
                self._show(self._corners)
            return
        super().keyPressEvent(event)

    def _reset(self) -> None:
        self._corners = []
        super()._reset()


class DrawnArea(QObject):
    """The area a person drew: on the map until it is cleared, whatever the canvas' coordinate system.

    Signals:
        changed: Another area was drawn, or it was cleared.
        drawing_ended: The drawing tool is put away.
    """

    changed = pyqtSignal()
    drawing_ended = pyqtSignal()

    def __init__(self, canvas: QgsMapCanvas, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._canvas = canvas
        self._band: QgsRubberBand | None = None
        self._geometry: QgsGeometry | None = None
        self._crs = QgsCoordinateReferenceSystem()
        self._shown = True
        self._before: QgsMapTool | None = None
        self.rectangle_tool = RectangleTool(canvas)
        self.polygon_tool = PolygonTool(canvas)
        for tool in (self.rectangle_tool, self.polygon_tool):
            tool.drawn.connect(self._take)
            tool.left.connect(self.stop)
            tool.deactivated.connect(self._ended)
        canvas.destinationCrsChanged.connect(self._paint)

    def draw(self, tool: DrawTool) -> None:
        """Let the person draw with one of the tools; what was drawn before stays until then."""
        current = self._canvas.mapTool()
        if current not in (self.rectangle_tool, self.polygon_tool):
            self._before = current
        self._canvas.setMapTool(tool)
        self._canvas.setFocus()

    def stop(self) -> None:
        """Put the drawing tool away and take the one that was there before."""
        if self._canvas.mapTool() in (self.rectangle_tool, self.polygon_tool):
            before, self._before = self._before, None
            if before is not None and not sip.isdeleted(before):
                self._canvas.setMapTool(before)
            else:
                self._canvas.unsetMapTool(self._canvas.mapTool())

    def geometry(self) -> tuple[QgsGeometry, QgsCoordinateReferenceSystem] | None:
        """Return what was drawn and its coordinate system; None where nothing was."""
        return None if self._geometry is None else (QgsGeometry(self._geometry), self._crs)

    def clear(self) -> None:
        """Take the area off the map."""
        if self._geometry is not None:
            self._geometry = None
            self._paint()
            self.changed.emit()

    def set_shown(self, shown: bool) -> None:
        """Show the area on the map or hide it: it counts only while a drawn area is chosen."""
        self._shown = shown
        self._paint()

    def close(self) -> None:
        """Take everything off the map. May be called twice."""
        self.stop()
        self._geometry = None
        self._paint()

    def _take(self, geometry: QgsGeometry) -> None:
        self._geometry = geometry
        self._crs = self._canvas.mapSettings().destinationCrs()
        self._paint()
        self.stop()
        self.changed.emit()

    def _ended(self) -> None:
        self.drawing_ended.emit()

    def _paint(self) -> None:
        remove_band(self._canvas, self._band)
        self._band = None
        if self._geometry is None or not self._shown:
            return
        shown = QgsGeometry(self._geometry)
        crs = self._canvas.mapSettings().destinationCrs()
        if self._crs.isValid() and crs.isValid() and crs != self._crs:
            try:
                shown.transform(QgsCoordinateTransform(self._crs, crs, QgsProject.instance()))
            except QgsCsException:
                return  # the canvas cannot show that place of the earth; the area is still there
        self._band = make_band(self._canvas)
        self._band.setFillColor(QColor(Qt.GlobalColor.transparent))  # what lies under it is what counts now
        self._band.setToGeometry(shown, None)


def make_band(canvas: QgsMapCanvas) -> QgsRubberBand:
    """Make an empty rubber band as areas look while they are drawn."""
    band = QgsRubberBand(canvas, QgsWkbTypes.GeometryType.PolygonGeometry)
    band.setStrokeColor(_STROKE)
    band.setFillColor(_FILL)
    band.setWidth(2)
    return band


def remove_band(canvas: QgsMapCanvas, band: QgsRubberBand | None) -> None:
    """Take a rubber band off the map."""
    if band is not None:
        canvas.scene().removeItem(band)
