"""From a raster layer and an extent to the file and the pixel window the daemon reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


class Placement(NamedTuple):
    """Where QGIS shows a scene, and what its file says of that: they differ where the user corrected it.

    Attributes:
        path: The scene's file.
        shown: Coordinate system of the layer; invalid where nobody knows it.
        stored: Coordinate system the file itself names; invalid where it names none.
    """

    path: str
    shown: QgsCoordinateReferenceSystem
    stored: QgsCoordinateReferenceSystem


def checked_raster(layer: QgsMapLayer | None) -> QgsRasterLayer:
    """Return the layer where it is a raster that can be read.

    Raises:
        SceneError: ``E_LAYER``.
    """
    if not isinstance(layer, QgsRasterLayer):
        raise SceneError("E_LAYER", _tr("Choose a raster layer first."))
    if not layer.isValid():
        message = _tr("The layer “{0}” cannot be read; repair its source first.").format(layer.name())
        raise SceneError("E_LAYER", message)
    return layer


def needs_copy(layer: QgsMapLayer | None) -> bool:
    """Tell whether a raster layer is more, or less, than one file that the daemon can open by its path.

    Args:
        layer: The layer the user chose; a broken one needs no copy.
    """
    usable = isinstance(layer, QgsRasterLayer) and layer.isValid()
    return usable and not _local_file(layer)


def scene_path(layer: QgsMapLayer | None) -> str:
    """Return the file a raster layer shows.

    Args:
        layer: The layer the user chose.

    Raises:
        SceneError: There is no layer, it is broken, or it is not one file on a local disk
            (:func:`needs_copy`).
    """
    raster = checked_raster(layer)
    path = _local_file(raster)
    if not path:
        message = _tr("The layer “{0}” is not a file on this computer; it has to be copied first.")
        raise SceneError("E_LAYER_FILE", message.format(raster.name()))
    return path


def placement(layer: QgsMapLayer | None) -> Placement:
    """Tell where QGIS shows the scene of a layer that is a file; on the layer's own thread.

    Raises:
        SceneError: As :func:`scene_path`.
    """
    path = scene_path(layer)
    return Placement(path, layer.crs(), layer.dataProvider().crs())


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
    dataset = opened(path)
    width, height = dataset.RasterXSize, dataset.RasterYSize
    # Without georeference QGIS puts the scene at (0, 0) with rows running down.
    transform = dataset.GetGeoTransform(can_return_null=True) or (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    window = pixel_window(transform, width, height, box_in(crs, extent, extent_crs, context))
    return None if window == (0, 0, width, height) else window


def box_in(
    crs: QgsCoordinateReferenceSystem,
    extent: QgsRectangle,
    extent_crs: QgsCoordinateReferenceSystem,
    context: QgsCoordinateTransformContext,
) -> QgsRectangle:
    """Return the box in ``crs`` around an extent; the extent itself where one system is unknown.

    Raises:
        SceneError: ``E_AREA``: the extent lies where ``crs`` has no coordinates.
    """
    if not crs.isValid() or not extent_crs.isValid() or crs == extent_crs:
        return extent
    try:
        return QgsCoordinateTransform(extent_crs, crs, context).transformBoundingBox(extent)
    except QgsCsException as error:
        message = _tr("The area cannot be expressed in the scene's coordinate system: {0}").format(error)
        raise SceneError("E_AREA", message) from error


def pixel_window(transform: Sequence[float], width: int, height: int, extent: QgsRectangle) -> Window:
    """Return the pixels of a grid that cover an extent.

    Args:
        transform: The grid's six numbers, as GDAL orders them.
        width: Columns of the grid.
        height: Rows of the grid.
        extent: The area, in the grid's coordinates.

    Raises:
        SceneError: The extent does not touch the grid, or the grid is degenerate.
    """
    inverse = gdal.InvGeoTransform(transform)
    if inverse is None:
        raise SceneError("E_LAYER", _tr("The scene's georeference is broken (it has no inverse)."))
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
    return Window(left, top, right - left, bottom - top)


def opened(path: str) -> gdal.Dataset:
    """Open a raster file with GDAL.

    Raises:
        SceneError: ``E_LAYER``.
    """
    try:
        dataset = gdal.Open(path)
    except RuntimeError:  # where another plugin has switched GDAL's exceptions on, as GDAL 4 will
        dataset = None
    if dataset is None:
        raise SceneError("E_LAYER", _tr("The file {0} cannot be opened as a raster.").format(path))
    return dataset


def _local_file(layer: QgsRasterLayer) -> str:
    """The one local file a layer shows whole and as it is, else an empty text."""
    if layer.providerType() != "gdal":
        return ""
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = parts.get("path") or ""
    # A file in an archive, a table of a database, a source with options is more than its path says.
    if any(parts.get(part) for part in ("vsiPrefix", "layerName", "openOptions")) or not Path(path).is_file():
        return ""
    return str(Path(path).absolute())


def _tr(text: str) -> str:
    return QCoreApplication.translate("Scene", text)
