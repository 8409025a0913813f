"""Areas drawn on the canvas, by clicks and keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qgis.core import QgsCoordinateReferenceSystem, QgsGeometry, QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapToolPan, QgsRubberBand
from qgis.PyQt.QtCore import QPoint, Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QFrame
from rest_qgis.gui.area_tools import DrawnArea

UTM, GEOGRAPHIC = "EPSG:26910", "EPSG:4326"
SIDE = 200  # pixels of the canvas, and its metres


@pytest.fixture
def canvas(qgis_app: Any, qtbot: Any) -> Iterator[QgsMapCanvas]:
    """A canvas with one metre a pixel."""
    made = QgsMapCanvas()
    qtbot.addWidget(made)
    made.setFrameStyle(QFrame.Shape.NoFrame)
    made.resize(SIDE, SIDE)
    made.show()
    qtbot.waitExposed(made)
    made.setDestinationCrs(QgsCoordinateReferenceSystem(UTM))
    made.setExtent(QgsRectangle(500_000, 5_000_000, 500_000 + SIDE, 5_000_000 + SIDE))
    qtbot.waitUntil(lambda: made.mapSettings().outputSize().width() == SIDE)
    assert made.mapUnitsPerPixel() == 1.0
    yield made
    made.unsetMapTool(made.mapTool())


@pytest.fixture
def drawn(canvas: Any) -> Iterator[DrawnArea]:
    made = DrawnArea(canvas)
    yield made
    made.close()


def test_rectangle_by_dragging(canvas: Any, drawn: DrawnArea) -> None:
    changes = _count(drawn.changed)
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (150, 120))
    geometry, crs = drawn.geometry()
    assert crs.authid() == UTM
    assert _box(geometry) == (50, 80, 150, 160)  # metres from the lower left
    assert geometry.area() == pytest.approx(100 * 80)
    assert changes == [1]
    assert canvas.mapTool() is None  # as before
    assert len(_bands(canvas)) == 1  # it stays on the map


def test_a_click_is_no_rectangle(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (51, 41))
    assert drawn.geometry() is None
    assert canvas.mapTool() is drawn.rectangle_tool  # still drawing
    assert _bands(canvas) == []


def test_rectangle_follows_the_screen_on_a_turned_canvas(canvas: Any, drawn: DrawnArea) -> None:
    canvas.setRotation(30)
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (150, 120))
    geometry, _crs = drawn.geometry()
    assert geometry.area() == pytest.approx(100 * 80, rel=0.02)
    assert geometry.boundingBox().width() > 110  # not along the axes


def test_polygon_ends_with_a_right_click(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.polygon_tool)
    for point in ((20, 20), (120, 20), (120, 120)):
        _click(canvas, point)
    assert drawn.geometry() is None
    _click(canvas, (60, 60), Qt.MouseButton.RightButton)
    geometry, _crs = drawn.geometry()
    assert geometry.area() == pytest.approx(100 * 100 / 2)
    assert canvas.mapTool() is None


def test_polygon_ends_with_a_double_click_that_no_other_tool_sees(canvas: Any, drawn: DrawnArea) -> None:
    pan = QgsMapToolPan(canvas)  # a click with it would move the map
    canvas.setMapTool(pan)
    before = canvas.extent()
    drawn.draw(drawn.polygon_tool)
    for point in ((20, 20), (120, 20), (120, 120)):
        _click(canvas, point)
    QTest.mouseDClick(canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(120, 120))
    QTest.mouseRelease(canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(120, 120))
    geometry, _crs = drawn.geometry()
    assert geometry.area() == pytest.approx(100 * 100 / 2)
    assert canvas.mapTool() is pan
    assert canvas.extent() == before


def test_two_corners_are_no_polygon(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.polygon_tool)
    _click(canvas, (20, 20))
    _click(canvas, (120, 20))
    _click(canvas, (60, 60), Qt.MouseButton.RightButton)
    assert drawn.geometry() is None
    assert canvas.mapTool() is drawn.polygon_tool


def test_backspace_takes_a_corner_back(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.polygon_tool)
    for point in ((20, 20), (120, 20), (190, 190)):
        _click(canvas, point)
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    _click(canvas, (120, 120))
    _click(canvas, (60, 60), Qt.MouseButton.RightButton)
    geometry, _crs = drawn.geometry()
    assert geometry.area() == pytest.approx(100 * 100 / 2)


@pytest.mark.parametrize("name", ["rectangle_tool", "polygon_tool"])
def test_escape_leaves_and_keeps_what_was_drawn_before(canvas: Any, drawn: DrawnArea, name: str) -> None:
    pan = QgsMapToolPan(canvas)
    canvas.setMapTool(pan)
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (150, 120))
    before = drawn.geometry()[0].asWkt()
    drawn.draw(getattr(drawn, name))
    if name == "polygon_tool":
        _click(canvas, (10, 10))
        _move(canvas, (190, 190))
        assert len(_bands(canvas)) == 2
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    assert canvas.mapTool() is pan
    assert drawn.geometry()[0].asWkt() == before
    assert len(_bands(canvas)) == 1


def test_another_tool_ends_drawing(canvas: Any, drawn: DrawnArea) -> None:
    ended = _count(drawn.drawing_ended)
    drawn.draw(drawn.polygon_tool)
    _click(canvas, (20, 20))
    assert len(_bands(canvas)) == 1
    pan = QgsMapToolPan(canvas)
    canvas.setMapTool(pan)
    assert ended == [1]
    assert _bands(canvas) == []
    drawn.stop()
    assert canvas.mapTool() is pan


def test_area_stays_where_it_is_in_another_coordinate_system(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (150, 120))
    (band,) = _bands(canvas)
    metres = band.asGeometry().boundingBox()
    canvas.setDestinationCrs(QgsCoordinateReferenceSystem(GEOGRAPHIC))
    (band,) = _bands(canvas)
    degrees = band.asGeometry().boundingBox()
    assert degrees.width() < 0.01
    assert -124 < degrees.xMinimum() < -122
    geometry, crs = drawn.geometry()
    assert crs.authid() == UTM  # what was drawn is not rounded by showing it
    assert geometry.boundingBox() == metres


def test_drawn_in_degrees_is_in_degrees(canvas: Any, drawn: DrawnArea) -> None:
    canvas.setDestinationCrs(QgsCoordinateReferenceSystem(GEOGRAPHIC))
    canvas.setExtent(QgsRectangle(10.0, 50.0, 10.2, 50.2))
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 50), (150, 150))
    geometry, crs = drawn.geometry()
    assert crs.authid() == GEOGRAPHIC
    assert geometry.boundingBox().width() == pytest.approx(0.1, rel=0.02)


def test_clear_hide_and_close(canvas: Any, drawn: DrawnArea) -> None:
    drawn.draw(drawn.rectangle_tool)
    _drag(canvas, (50, 40), (150, 120))
    drawn.set_shown(False)
    assert _bands(canvas) == []
    assert drawn.geometry() is not None
    drawn.set_shown(True)
    assert len(_bands(canvas)) == 1
    changes = _count(drawn.changed)
    drawn.clear()
    assert drawn.geometry() is None
    assert _bands(canvas) == []
    assert changes == [1]
    drawn.clear()
    assert changes == [1]
    drawn.close()
    drawn.close()


def _click(canvas: Any, point: tuple[int, int], button: Any = Qt.MouseButton.LeftButton) -> None:
    QTest.mouseClick(canvas.viewport(), button, pos=QPoint(*point))


def _move(canvas: Any, point: tuple[int, int]) -> None:
    QTest.mouseMove(canvas.viewport(), QPoint(*point))


def _drag(canvas: Any, start: tuple[int, int], end: tuple[int, int]) -> None:
    QTest.mousePress(canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(*start))
    _move(canvas, ((start[0] + end[0]) // 2, (start[1] + end[1]) // 2))
    _move(canvas, end)
    QTest.mouseRelease(canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(*end))


def _bands(canvas: Any) -> list[QgsRubberBand]:
    return [item for item in canvas.scene().items() if isinstance(item, QgsRubberBand) and item.size() > 0]


def _box(geometry: QgsGeometry) -> tuple[int, int, int, int]:
    box = geometry.boundingBox()
    left, bottom = box.xMinimum() - 500_000, box.yMinimum() - 5_000_000
    return round(left), round(bottom), round(left + box.width()), round(bottom + box.height())


def _count(signal: Any) -> list[int]:
    calls = [0]
    signal.connect(lambda: calls.__setitem__(0, calls[0] + 1))
    return calls
