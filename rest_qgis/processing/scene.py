"""From a raster layer and an extent to the file and the pixel window the daemon reads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsMapLayer,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.PyQt.QtCore import QCoreApplication

from rest_qgis.processing.errors import SceneError


class Window(NamedTuple):
    """A part of a scene in its own pixels, as the wire carries it."""

    column: int
    row: int
    width: int
    height: int


def scene_path(layer: QgsMapLayer | None) -> str:
    """Return the file a raster layer shows.

    Args:
        layer: The layer the user chose.

    Raises:
        SceneError: There is no layer, it is broken, or it is not one file on a local disk.
    """
    if not isinstance(layer, QgsRasterLayer):
        raise SceneError("E_LAYER", _tr("Choose a raster layer first."))
    if not layer.isValid():
        message = _tr("The layer “{0}” cannot be read; repair its source first.").format(layer.name())
        raise SceneError("E_LAYER", message)
    path = ""
    if layer.providerType() == "gdal":
        path = QgsProviderRegistry.instance().decodeUri("gdal", layer.source()).get("path") or ""
    if not path or not Path(path).is_file():
        raise SceneError(
            "E_LAYER_FILE",
            _tr(
                "The layer “{0}” is not a file on this computer. Save it as a GeoTIFF first "
                "(Layer ▸ Save As…), then segment that file."
            ).format(layer.name()),
        )
    return str(Path(path).absolute())


def scene_window(
    path: str,
    crs: QgsCoordinateReferenceSystem,
    extent: QgsRectangle,
    extent_crs: QgsCoordinateReferenceSystem,
    context: QgsCoordinateTransformContext,
) -> Window | None:
    """Return the pixels of the scene that cover an extent.

    Works on the file's own geotransform, so that rotated and non-square pixels
    are right: QGIS shows such a file through a warped copy with another grid.

    Args:
        path: The scene's file.
        crs: Coordinate system of the scene; an invalid one means "as the extent's".
        extent: The area asked for.
        extent_crs: Coordinate system of ``extent``.
        context: The project's choice of datum transformations.

    Returns:
        The window, or None where the extent covers the whole scene.

    Raises:
        SceneError: The file cannot be opened, or the extent does not touch it.
    """
    try:
        dataset = gdal.Open(path)
    except RuntimeError:  # where another plugin has switched GDAL's exceptions on, as GDAL 4 will
        dataset = None
    if dataset is None:
        raise SceneError("E_LAYER", _tr("The file {0} cannot be opened as a raster.").format(path))
    width, height = dataset.RasterXSize, dataset.RasterYSize
    # Without georeference QGIS puts the scene at (0, 0) with rows running down.
    transform = dataset.GetGeoTransform(can_return_null=True) or (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    inverse = gdal.InvGeoTransform(transform)
    if inverse is None:
        message = _tr("The georeference of {0} is broken (it has no inverse).").format(path)
        raise SceneError("E_LAYER", message)

    if crs.isValid() and extent_crs.isValid() and crs != extent_crs:
        try:
            extent = QgsCoordinateTransform(extent_crs, crs, context).transformBoundingBox(extent)
        except QgsCsException as error:
            message = _tr("The area cannot be expressed in the scene's coordinate system: {0}").format(error)
            raise SceneError("E_AREA", message) from error
    corners = [
        gdal.ApplyGeoTransform(inverse, x, y)
        for x in (extent.xMinimum(), extent.xMaximum())
        for y in (extent.yMinimum(), extent.yMaximum())
    ]
    if not all(math.isfinite(value) for corner in corners for value in corner):
        raise SceneError("E_AREA", _tr("The area does not touch the scene."))
    # A thousandth of a pixel forgives what the transforms round away.
    left = max(0, math.floor(min(x for x, _ in corners) + 1e-3))
    top = max(0, math.floor(min(y for _, y in corners) + 1e-3))
    right = min(width, math.ceil(max(x for x, _ in corners) - 1e-3))
    bottom = min(height, math.ceil(max(y for _, y in corners) - 1e-3))
    if left >= right or top >= bottom:
        raise SceneError("E_AREA", _tr("The area does not touch the scene."))
    window = Window(left, top, right - left, bottom - top)
    return None if window == (0, 0, width, height) else window


def _tr(text: str) -> str:
    return QCoreApplication.translate("Scene", text)
