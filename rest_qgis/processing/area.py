"""From polygons in QGIS to a file of them the daemon reads.

An area is taken on QGIS's main thread, where layers live, and written on any: what
it keeps of a layer is a snapshot. It is written in its own coordinate system; the
daemon brings it to the scene's and says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsGeometry,
    QgsMapLayer,
    QgsProcessingFeatureSource,
    QgsRectangle,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsVectorLayerFeatureSource,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QCoreApplication

from rest_qgis.processing.errors import AreaError, RunError
from rest_qgis.processing.scene import Placement

FILE_NAME = "area.fgb"


class Area:
    """The polygons a result is wanted for; made by one of the ``of_`` methods, on the main thread.

    Attributes:
        crs: Their coordinate system.
        extent: The box around them, in ``crs``.
    """

    def __init__(
        self,
        geometries: Callable[[], Iterable[QgsGeometry]],
        crs: QgsCoordinateReferenceSystem,
        extent: QgsRectangle,
    ) -> None:
        self.crs = crs
        self.extent = extent
        self._geometries = geometries

    @classmethod
    def of_layer(cls, layer: QgsMapLayer | None, selected_only: bool = False) -> Area:
        """Take all polygons of a layer, or the selected ones.

        Raises:
            AreaError: ``E_AOI_EMPTY``: no polygon layer, nothing in it, or nothing selected.
        """
        if not isinstance(layer, QgsVectorLayer) or not layer.isValid():
            raise AreaError("E_AOI_EMPTY", _tr("Choose a polygon layer for the area."))
        if layer.geometryType() != _polygon_type():
            message = _tr("The layer “{0}” has no polygons; choose a polygon layer for the area.")
            raise AreaError("E_AOI_EMPTY", message.format(layer.name()))
        request = QgsFeatureRequest().setSubsetOfAttributes([])
        if selected_only:
            request.setFilterFids(layer.selectedFeatureIds())
            if layer.selectedFeatureCount() == 0:
                message = _tr("No polygon of “{0}” is selected. Select some, or use the whole layer.")
                raise AreaError("E_AOI_EMPTY", message.format(layer.name()))
        snapshot = QgsVectorLayerFeatureSource(layer)
        extent = layer.boundingBoxOfSelected() if selected_only else layer.extent()
        return cls(
            lambda: (feature.geometry() for feature in snapshot.getFeatures(request)), layer.crs(), extent
        )

    @classmethod
    def of_geometry(cls, geometry: QgsGeometry, crs: QgsCoordinateReferenceSystem) -> Area:
        """Take a drawn rectangle or polygon.

        Raises:
            AreaError: ``E_AOI_EMPTY``: it is no polygon, or covers nothing.
        """
        if geometry.type() != _polygon_type() or geometry.isEmpty():
            raise AreaError("E_AOI_EMPTY", _tr("Draw a rectangle or a polygon for the area."))
        kept = QgsGeometry(geometry.constGet().clone())
        return cls(lambda: [kept], crs, kept.boundingBox())

    @classmethod
    def of_source(cls, source: QgsProcessingFeatureSource) -> Area:
        """Take what a Processing parameter names; it can be written once.

        Raises:
            AreaError: ``E_AOI_EMPTY``: it holds no features.
        """
        if source.featureCount() == 0:
            message = _tr("The area “{0}” holds no polygons, or none is selected.")
            raise AreaError("E_AOI_EMPTY", message.format(source.sourceName()))
        # A self-crossing ring is repaired by the daemon, which says so, instead of refused by QGIS.
        features = source.getFeatures(QgsFeatureRequest().setSubsetOfAttributes([]), _no_validity_checks())

        def geometries(_source: QgsProcessingFeatureSource = source) -> Iterable[QgsGeometry]:
            return (feature.geometry() for feature in features)  # which read from the source

        return cls(geometries, source.sourceCrs(), source.sourceExtent())

    def write(
        self, folder: Path, scene: Placement, context: QgsCoordinateTransformContext, feedback: Any = None
    ) -> str:
        """Write the polygons, complete or not at all; on any thread.

        Args:
            folder: Where ``area.fgb`` goes.
            scene: The scene they are for.
            context: The project's choice of datum transformations.
            feedback: A ``QgsFeedback`` or ``QgsTask`` that may be cancelled.

        Returns:
            The file's path.

        Raises:
            AreaError: There are no polygons, they cannot be placed on the scene, or the disk fails.
            RunError: ``E_CANCELLED``.
        """
        transform, label = self._way_to(scene, context)
        path, unfinished = folder / FILE_NAME, folder / f".{FILE_NAME}"
        try:
            self._write(unfinished, transform, label, context, feedback)
            unfinished.replace(path)
        except OSError as error:
            message = _tr("The area cannot be written to {0}: {1}.").format(folder, error.strerror or error)
            raise AreaError("E_AOI_WRITE", message) from error
        finally:
            with suppress(OSError):
                unfinished.unlink()
        return str(path)

    def _way_to(
        self, scene: Placement, context: QgsCoordinateTransformContext
    ) -> tuple[QgsCoordinateTransform, QgsCoordinateReferenceSystem]:
        """How polygons get to where the daemon sees the scene, and what they are labelled with.

        They stay as they are, unless QGIS shows the scene elsewhere than its file says.
        """
        if not self.crs.isValid() and scene.shown.isValid():
            message = _tr("The area has no coordinate system, but the scene has one: set that of the area.")
            raise AreaError("E_AOI_CRS", message)
        as_shown = scene.shown == scene.stored and scene.stored.isValid()
        transform = QgsCoordinateTransform()
        if not as_shown and scene.shown.isValid():
            transform = QgsCoordinateTransform(self.crs, scene.shown, context)
        return transform, self.crs if as_shown else scene.stored

    def _write(
        self,
        path: Path,
        transform: QgsCoordinateTransform,
        label: QgsCoordinateReferenceSystem,
        context: QgsCoordinateTransformContext,
        feedback: Any,
    ) -> None:
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName = "FlatGeobuf"  # a GeoPackage cannot say that there is no coordinate system
        options.layerName = "area"
        kind = QgsWkbTypes.Type.MultiPolygon
        writer = QgsVectorFileWriter.create(str(path), QgsFields(), kind, label, context, options)
        written = 0
        try:
            for geometry in self._geometries():
                if feedback is not None and feedback.isCanceled():
                    raise RunError("E_CANCELLED", _tr("Cancelled while the area was being written."))
                for polygon in _polygons(geometry):
                    polygon.transform(transform)
                    feature = QgsFeature()
                    feature.setGeometry(polygon)
                    if not writer.addFeature(feature):
                        raise OSError(writer.errorMessage())
                    written += 1
            if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
                raise OSError(writer.errorMessage())
        except QgsCsException as error:
            message = _tr("The area cannot be expressed in the scene's coordinate system: {0}").format(error)
            raise AreaError("E_AOI_CRS", message) from error
        finally:
            del writer  # closes the file
        if written == 0:
            raise AreaError("E_AOI_EMPTY", _tr("The area holds no polygons."))


def _polygons(geometry: QgsGeometry) -> Iterable[QgsGeometry]:
    """Yield the polygons of a geometry as plain multipolygons: straight edges, no heights."""
    if geometry.isEmpty():
        return
    if geometry.type() == _polygon_type():
        plain = QgsGeometry(geometry.constGet().segmentize())
        plain.get().dropZValue()
        plain.get().dropMValue()
        plain.convertToMultiType()
        yield plain
    elif QgsWkbTypes.flatType(geometry.wkbType()) == QgsWkbTypes.Type.GeometryCollection:
        for part in geometry.asGeometryCollection():
            yield from _polygons(part)


def _polygon_type() -> Any:
    """The kind "polygon", which moved to :class:`Qgis` in QGIS 3.30."""
    try:
        return Qgis.GeometryType.Polygon
    except AttributeError:
        return QgsWkbTypes.GeometryType.PolygonGeometry


def _no_validity_checks() -> Any:
    """The flag against checks of geometries, which moved to :class:`Qgis` in QGIS 3.36."""
    try:
        return Qgis.ProcessingFeatureSourceFlag.SkipGeometryValidityChecks
    except AttributeError:
        return QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks


def _tr(text: str) -> str:
    return QCoreApplication.translate("Area", text)
