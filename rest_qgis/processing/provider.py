"""The Processing provider ``rest``."""

from __future__ import annotations

from qgis.core import QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from rest_qgis.processing.desk import JobDesk
from rest_qgis.processing.segment import SegmentAlgorithm
from rest_qgis.resources import icon_path


class RestProvider(QgsProcessingProvider):
    """Offers the backend's operations to the toolbox, to models and to ``qgis_process``."""

    def __init__(self, desk: JobDesk) -> None:
        super().__init__()
        self._desk = desk

    def id(self) -> str:
        """Return the id algorithms are called by."""
        return "rest"

    def name(self) -> str:
        """Return the name in the toolbox."""
        return "REST"

    def longName(self) -> str:
        """Return the name with what it stands for."""
        return self.tr("REST whole-scene segmentation")

    def icon(self) -> QIcon:
        """Return the provider's icon."""
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        """Return the path of the provider's icon."""
        return icon_path("rest.svg")

    def supportedOutputRasterLayerExtensions(self) -> list[str]:
        """Return the formats the backend writes."""
        return ["tif", "tiff"]

    def defaultRasterFileExtension(self) -> str:
        """Return the format of temporary outputs."""
        return "tif"

    def loadAlgorithms(self) -> None:
        """Register every algorithm."""
        self.addAlgorithm(SegmentAlgorithm(self._desk))
