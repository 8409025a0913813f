"""What a filled-in form asks for, taken on the main thread; made into an order on another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from qgis.core import (
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsDistanceArea,
    QgsPointXY,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QCoreApplication

from rest_qgis.client import new_key
from rest_qgis.gui.area_box import CANVAS, LAYER, POLYGON, RECTANGLE
from rest_qgis.gui.preparation import Preparation
from rest_qgis.gui.run_form import RunForm
from rest_qgis.install.folder import make_results_folder, results_folder
from rest_qgis.processing.area import Area
from rest_qgis.processing.desk import Order
from rest_qgis.processing.handover import Handover
from rest_qgis.processing.scene import Placement, Window, box_in, needs_copy, opened, pixel_window, placement

PREVIEW_SIDE = 512  # pixels of the scene
_PLAN_FOLDER = "rest-plan-"


@dataclass(frozen=True)
class Draft:
    """One job to be; everything it holds may be used on any thread.

    Attributes:
        order: All of it that needs no look at a file.
        handover: Layer and area.
        scene: Where a layer that is a file lies; None where it is copied first.
        centre: A box around the centre of a preview, as small as a pixel of the screen.
        context: The project's choice of datum transformations.
    """

    order: Order
    handover: Handover
    scene: Placement | None
    centre: QgsReferencedRectangle | None
    context: QgsCoordinateTransformContext

    @classmethod
    def of(cls, form: RunForm, canvas: QgsMapCanvas, preview: bool = False, whole: bool = False) -> Draft:
        """Take what a form holds; it must have no trouble.

        Args:
            form: The form.
            canvas: The map.
            preview: Take one window at the centre of the map.
            whole: Take the whole layer, whatever area is chosen.

        Raises:
            SceneError: The layer or the area cannot be used.
        """
        layer, model = form.layer(), form.model()
        key = new_key()
        title = f"{layer.name()} – {model.short_name}"
        outputs = form.output_box.paths(f"{layer.name()}_{model.id}_{key[:6]}")
        extent, area, centre = None, None, None
        if preview:
            title = _tr("Preview – {0}").format(title)
            outputs = (str(results_folder() / f"preview_{key}.tif"), "", "")
            centre = _screen_pixel(canvas)
            if needs_copy(layer):  # only what the preview shows
                metres = form.detail_box.resolution() or (model.resolution or (0.0,))[0]
                extent = _preview_box(layer, canvas, metres)
        elif not whole:
            extent, area = _wanted(form, canvas)
        order = Order(
            scene="",
            model=model.id,
            output=outputs[0],
            classes=model.classes,
            title=title,
            bands=form.band_table.bands(),
            preview=preview,
            confidence=outputs[1],
            probabilities=outputs[2],
            key=key,
        )
        resolution = form.detail_box.resolution()
        expected = model.resolution[0] if model.resolution else 0.0
        handover = Handover(layer, extent, area, resolution, expected)
        scene = None if handover.copies else placement(layer)
        return cls(order, handover, scene, centre, QgsProject.instance().transformContext())

    def plannable(self, task: Preparation) -> Order:
        """Return an order to plan; on any thread.

        Raises:
            OrderError: Scene or area cannot be used.
        """
        temporary = Path(QgsProcessingUtils.tempFolder())
        for old in temporary.glob(f"{_PLAN_FOLDER}*"):
            shutil.rmtree(old, ignore_errors=True)

        def folder() -> Path:
            made = temporary / f"{_PLAN_FOLDER}{self.order.key}"
            made.mkdir(exist_ok=True)
            return made

        return self._made(folder, task)

    def runnable(self, inbox: Callable[[str], Path], task: Preparation) -> Order:
        """Return an order to hand in; on any thread.

        Args:
            inbox: Makes the engine's folder for the files of a job, by the job's key.
            task: Told how much of a layer is copied and what the user should know of it; looked at for
                a cancel.

        Raises:
            OrderError: Scene or area cannot be used.
            ClientError: The engine's folder cannot be made.
        """
        made: set[Path] = set()

        def folder() -> Path:
            path = inbox(self.order.key)
            made.add(path)
            return path

        order = None
        try:
            order = self._made(folder, task)
        finally:
            if order is None:  # nobody will hand it in, and the daemon would never delete its files
                for path in made:
                    shutil.rmtree(path, ignore_errors=True)
        return order

    def _made(self, folder: Callable[[], Path], task: Preparation) -> Order:
        make_results_folder()
        handed = self.handover.write(folder, task)
        task.notes = handed.notes
        window = handed.window
        if self.centre is not None and self.scene is not None:
            window = preview_window(self.scene, self.centre, self.context)
        elif self.centre is not None and window is not None:  # a box may touch a pixel more
            window = window._replace(
                width=min(window.width, PREVIEW_SIDE), height=min(window.height, PREVIEW_SIDE)
            )
        return replace(
            self.order, scene=handed.scene, window=window, aoi=handed.aoi, resolution_m=handed.resolution_m
        )


def preview_window(
    scene: Placement, centre: QgsReferencedRectangle, context: QgsCoordinateTransformContext
) -> Window:
    """Return the square of :data:`PREVIEW_SIDE` pixels around a point, moved to lie inside the scene.

    Args:
        scene: The scene.
        centre: A box around the point, as small as a pixel of the screen.
        context: The project's choice of datum transformations.

    Raises:
        SceneError: The point is beside the scene, or the file cannot be opened.
    """
    dataset = opened(scene.path)
    transform = dataset.GetGeoTransform(can_return_null=True) or (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    size = dataset.RasterXSize, dataset.RasterYSize
    spot = pixel_window(transform, *size, box_in(scene.shown, centre, centre.crs(), context))
    width, height = (min(PREVIEW_SIDE, side) for side in size)
    column = min(max(0, spot.column + spot.width // 2 - width // 2), size[0] - width)
    row = min(max(0, spot.row + spot.height // 2 - height // 2), size[1] - height)
    return Window(column, row, width, height)


def preview_trouble(layer: QgsRasterLayer | None, canvas: QgsMapCanvas) -> str:
    """Return why there can be no preview, in a sentence; empty where there can."""
    if layer is None:
        return _tr("Add a raster layer to the project, and choose it.")
    centre = _centre(layer, canvas)
    if centre is None or not layer.extent().contains(centre):
        return _tr("The centre of the map is not on the scene.")
    return ""


def _wanted(form: RunForm, canvas: QgsMapCanvas) -> tuple[QgsReferencedRectangle | None, Area | None]:
    """The box and the polygons the form asks for."""
    box = form.area_box
    kind = box.kind()
    if kind == CANVAS:
        return QgsReferencedRectangle(canvas.extent(), canvas.mapSettings().destinationCrs()), None
    if kind in (RECTANGLE, POLYGON):
        return None, Area.of_geometry(*box.drawn.geometry())
    if kind == LAYER:
        return None, Area.of_layer(box.layer(), box.only_selected())
    return None, None


def _centre(layer: QgsRasterLayer, canvas: QgsMapCanvas) -> QgsPointXY | None:
    """The centre of the canvas in the layer's coordinates; None where it has none there."""
    crs = canvas.mapSettings().destinationCrs()
    if not crs.isValid() or not layer.crs().isValid() or crs == layer.crs():
        return canvas.center()
    try:
        transform = QgsCoordinateTransform(crs, layer.crs(), QgsProject.instance())
        # Good enough for a look; else QGIS warns while a new project takes its system from a layer.
        transform.setBallparkTransformsAreAppropriate(True)
        return transform.transform(canvas.center())
    except QgsCsException:
        return None


def _preview_box(layer: QgsRasterLayer, canvas: QgsMapCanvas, metres: float) -> QgsReferencedRectangle | None:
    """The box a preview of a layer that is no file shows, in the layer's coordinates."""
    centre = _centre(layer, canvas)
    if centre is None:
        return None
    x_size, y_size = layer.rasterUnitsPerPixelX(), layer.rasterUnitsPerPixelY()
    if layer.width() == 0:  # drawn on request, at so many metres per pixel
        ruler = QgsDistanceArea()
        ruler.setSourceCrs(layer.crs(), QgsProject.instance().transformContext())
        ruler.setEllipsoid(layer.crs().ellipsoidAcronym() or "EPSG:7030")
        step = 0.001 if layer.crs().isGeographic() else 100.0
        east = QgsPointXY(centre.x() + step, centre.y())
        north = QgsPointXY(centre.x(), centre.y() + step)
        x_size, y_size = (metres * step / ruler.measureLine([centre, end]) for end in (east, north))
    box = QgsRectangle.fromCenterAndSize(centre, PREVIEW_SIDE * x_size, PREVIEW_SIDE * y_size)
    return QgsReferencedRectangle(box, layer.crs())


def _screen_pixel(canvas: QgsMapCanvas) -> QgsReferencedRectangle:
    side = canvas.mapUnitsPerPixel()
    box = QgsRectangle.fromCenterAndSize(canvas.center(), side, side)
    return QgsReferencedRectangle(box, canvas.mapSettings().destinationCrs())


def _tr(text: str) -> str:
    return QCoreApplication.translate("Draft", text)
