"""Inside QGIS: open the sample scene, press the buttons, take the pictures, leave.

Run by ``make_screenshot.py``. Each step is tried again until it says that it is done.
"""

from __future__ import annotations

import os
from pathlib import Path

from osgeo import gdal
from qgis.core import QgsPointXY, QgsProject, QgsRasterLayer, QgsRectangle
from qgis.PyQt.QtCore import QPoint, Qt, QTimer
from qgis.PyQt.QtGui import QImage
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QDockWidget
from qgis.utils import iface, plugins

SIZE = (1400, 900)
LARGEST = 600_000  # bytes of a picture
SHARE = 0.55  # of the rows that are done when the whole scene's picture is taken
# In pixels of the scene: left, bottom, right and top of the map around the area, and the area's corners.
VIEW = (1450, 2350, 2560, 1450)
CORNERS = ((1720, 1620), (2300, 1530), (2480, 1890), (2260, 2270), (1790, 2110))

folder = Path(os.environ["REST_SCREENSHOT"])
plugin = plugins["rest_qgis"]
window, canvas = iface.mainWindow(), iface.mapCanvas()
form = plugin.dock.run_panel.form
layers = {}


def main() -> None:
    """Carry out the steps, three a second at most."""
    steps = [arrange, zoom, picture_of_run]
    steps += [open_bands, picture_of_bands]
    steps += [choose_polygon, draw, run, picture_of_area, picture_of_confidence]
    steps += [whole_scene, run, picture_of_qgis, cancel, run, open_jobs, picture_of_jobs]
    steps += [cancel, leave, end]

    def tick() -> None:
        done = True
        try:
            done = not steps or steps[0]()
        except BaseException:
            steps[:] = [cancel, leave, end]  # without the pictures that are missing; the maker says so
            raise
        if steps and done:
            steps.pop(0)

    timer = QTimer(window)
    timer.timeout.connect(tick)
    timer.start(300)


def arrange() -> bool:
    """Open the scene and the dock, the window without what only takes room."""
    window.setGeometry(0, 0, *SIZE)
    browser = window.findChild(QDockWidget, "Browser")
    if browser is not None:
        browser.hide()
    layers["kitsap"] = add(folder / "kitsap.tif")
    plugin.toolbar.segment_action.trigger()
    tree = window.findChild(QDockWidget, "Layers")
    window.resizeDocks([tree, plugin.dock], [330, 340], Qt.Orientation.Horizontal)
    return True


def zoom() -> bool:
    """Show the whole scene."""
    canvas.zoomToFullExtent()
    canvas.zoomByFactor(0.98)
    form.output_box.confidence_box.setChecked(True)
    return True


def picture_of_run() -> bool:
    """The form filled in, its plan below."""
    return planned() and still() and take(window, "run")


def open_bands() -> bool:
    """A scene of four bands, of which two have names."""
    path = folder / "four bands.tif"
    part = gdal.Translate("", str(folder / "kitsap.tif"), format="MEM", bandList=[3, 1, 2, 1])
    for number, name in enumerate(("", "red", "green", ""), start=1):
        band = part.GetRasterBand(number)
        band.SetDescription(name)
        band.SetColorInterpretation(gdal.GCI_Undefined)
    gdal.Translate(str(path), part, creationOptions=["PHOTOMETRIC=MINISBLACK"])
    layers["bands"] = add(path)
    form.layer_combo.setLayer(layers["bands"])
    return True


def picture_of_bands() -> bool:
    """The table with a row nobody can be sure of."""
    return form.band_table.isVisible() and waited("bands") and still() and take(plugin.dock, "bands")


def choose_polygon() -> bool:
    """Back to the scene; the map shows the place where the area will be."""
    QgsProject.instance().removeMapLayer(layers.pop("bands").id())
    iface.setActiveLayer(layers["kitsap"])
    form.layer_combo.setLayer(layers["kitsap"])
    canvas.setExtent(QgsRectangle(place(*VIEW[:2]), place(*VIEW[2:])))
    form.area_box.choose("polygon")
    return True


def draw() -> bool:
    """Draw the area by clicks."""
    if not still():
        return False
    form.area_box.draw_button.click()
    for corner in CORNERS:
        QTest.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, pos=spot(*corner))
    QTest.mouseClick(canvas.viewport(), Qt.MouseButton.RightButton, pos=spot(*CORNERS[0]))
    return True


def run() -> bool:
    """Press Run, once the plan is there."""
    if not planned() or not still() or not form.run_button.isEnabled():
        return False
    form.run_button.click()
    return True


def picture_of_area() -> bool:
    """The result, with nothing outside the area."""
    if not form.run_button.isEnabled() or not still() or len(results()) < 2:
        return False
    layers["confidence"], layers["classes"] = sorted(
        results(), key=lambda layer: layer.renderer().type() == "paletted"
    )
    show(layers["confidence"], False)
    iface.messageBar().clearWidgets()
    return waited("area") and still() and take(window, "area")


def picture_of_confidence() -> bool:
    """How sure the network was of it."""
    show(layers["confidence"], True)
    show(layers["classes"], False)
    return waited("confidence") and still() and take(window, "confidence")


def whole_scene() -> bool:
    """Empty the map again and choose the whole scene."""
    for name in ("confidence", "classes"):
        QgsProject.instance().removeMapLayer(layers.pop(name).id())
    form.area_box.choose("whole")
    form.area_box.drawn.clear()
    form.output_box.confidence_box.setChecked(False)
    return zoom_out()


def zoom_out() -> bool:
    """Show the whole scene."""
    canvas.zoomToFullExtent()
    canvas.zoomByFactor(0.98)
    return True


def picture_of_qgis() -> bool:
    """The result while it grows."""
    bar = plugin.dock.strip.progress_bar
    if bar.maximum() == 0 or bar.value() < SHARE * bar.maximum() or not still():
        return False
    return take(window, "qgis")


def open_jobs() -> bool:
    """Turn to the list of jobs."""
    plugin.dock.show_panel(plugin.jobs_panel)
    return True


def picture_of_jobs() -> bool:
    """Jobs that are done and cancelled, and one that runs."""
    return waited("jobs", 8) and take(plugin.dock, "jobs")


def cancel() -> bool:
    """End the job, if it has not ended yet."""
    plugin.dock.strip.cancel_button.click()
    return True


def leave() -> bool:
    """End the engine."""
    if not form.run_button.isEnabled():
        return False
    plugin.link.stop()
    return True


def end() -> bool:
    """End QGIS."""
    if plugin.toolbar.engine_button.text() != "Off":
        return False
    QgsProject.instance().clear()
    iface.actionExit().trigger()
    return True


# --- pieces -----------------------------------------------------------------------------


def add(path: Path) -> QgsRasterLayer:
    """Add a layer as a person does."""
    layer = QgsRasterLayer(str(path), path.stem)
    QgsProject.instance().addMapLayer(layer)
    iface.setActiveLayer(layer)
    return layer


def results() -> list[QgsRasterLayer]:
    """The layers jobs made."""
    return [layer for layer in QgsProject.instance().mapLayers().values() if layer.customProperty("rest/job")]


def show(layer: QgsRasterLayer, shown: bool) -> None:
    """Check or uncheck a layer in the legend."""
    QgsProject.instance().layerTreeRoot().findLayer(layer.id()).setItemVisibilityChecked(shown)


def planned() -> bool:
    """Whether the plan line holds a plan."""
    return "px" in form.plan_line.text()


def still() -> bool:
    """Whether the map is drawn."""
    return not canvas.isDrawing()


waits: dict[str, int] = {}


def waited(name: str, ticks: int = 3) -> bool:
    """Whether a step was tried so often: what it changed is drawn then."""
    waits[name] = waits.get(name, 0) + 1
    return waits[name] > ticks


def place(column: int, row: int) -> QgsPointXY:
    """Where a pixel of the scene lies."""
    extent = layers["kitsap"].extent()
    step = extent.width() / layers["kitsap"].width()
    return QgsPointXY(extent.xMinimum() + column * step, extent.yMaximum() - row * step)


def spot(column: int, row: int) -> QPoint:
    """Where a pixel of the scene is on the screen."""
    point = canvas.getCoordinateTransform().transform(place(column, row))
    return QPoint(round(point.x()), round(point.y()))


def take(widget: object, name: str) -> bool:
    """Save a picture of a widget, with fewer colours where it would be too large."""
    picture = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    for colors in (None, QImage.Format.Format_Indexed8):
        if colors is not None:
            picture = picture.convertToFormat(colors, Qt.ImageConversionFlag.DiffuseDither)
        picture.save(str(folder / f"{name}.png"), "PNG", 0)
        if (folder / f"{name}.png").stat().st_size <= LARGEST:
            break
    return True


main()
