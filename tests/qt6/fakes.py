"""Stand-ins for the classes of QGIS the plugin names, each called as the class it stands for.

They hold what the plugin's modules need to be imported and built under Qt 6, for which there is no
QGIS here; what QGIS does with them is tested in the real one, in ``tests/qgis``.
"""

from __future__ import annotations

import sys
import tempfile
from types import ModuleType, SimpleNamespace
from typing import Any

from PyQt6.QtCore import QObject, QSettings, pyqtSignal
from PyQt6.QtGui import QIcon
from PyQt6.QtWidgets import (
    QComboBox,
    QDockWidget,
    QGraphicsScene,
    QGraphicsView,
    QHBoxLayout,
    QLineEdit,
    QWidget,
)

# Named in annotations, or used where no test under Qt 6 comes: an empty class will do.
PLAIN = [
    "QgsCoordinateTransform",
    "QgsCoordinateTransformContext",
    "QgsCsException",
    "QgsDataProvider",
    "QgsDistanceArea",
    "QgsFeature",
    "QgsFeatureRequest",
    "QgsFields",
    "QgsLayerTreeGroup",
    "QgsLayerTreeNode",
    "QgsPalettedRasterRenderer",
    "QgsPointXY",
    "QgsProcessing",
    "QgsProcessingContext",
    "QgsProcessingFeatureSource",
    "QgsProcessingFeedback",
    "QgsProcessingMultiStepFeedback",
    "QgsProcessingOutputNumber",
    "QgsProcessingOutputString",
    "QgsProcessingParameterBand",
    "QgsProcessingParameterDefinition",
    "QgsProcessingParameterEnum",
    "QgsProcessingParameterExtent",
    "QgsProcessingParameterFeatureSource",
    "QgsProcessingParameterNumber",
    "QgsProcessingParameterRasterDestination",
    "QgsProcessingParameterRasterLayer",
    "QgsProcessingParameterString",
    "QgsRasterBlockFeedback",
    "QgsRectangle",
    "QgsReferencedRectangle",
    "QgsVectorFileWriter",
    "QgsVectorLayerFeatureSource",
    "QgsProcessingAlgorithm",
    "QgsProcessingLayerPostProcessorInterface",
]


class Qgis:
    """Its enumerations."""

    MessageLevel = SimpleNamespace(Info=0, Warning=1, Critical=2, Success=3)
    LayerFilter = SimpleNamespace(RasterLayer=1, PolygonLayer=2)
    DataType = SimpleNamespace(ARGB32=12, ARGB32_Premultiplied=13)


class QgsWkbTypes:
    """Its enumerations."""

    GeometryType = SimpleNamespace(PolygonGeometry=2)


class QgsProcessingException(Exception):
    """An exception, which plain classes cannot be."""


class QgsMapLayerProxyModel:
    """Its filters."""

    Filter = SimpleNamespace(RasterLayer=1, PolygonLayer=2)


class QgsSettings(QSettings):
    """Settings in a file of this process's own."""

    def __init__(self) -> None:
        super().__init__(f"{QgsProcessingUtils.folder}/settings.ini", QSettings.Format.IniFormat)


class QgsMessageLog:
    """Notes what is logged."""

    told: list[str] = []

    @classmethod
    def logMessage(cls, text: str, *_: Any, **__: Any) -> None:
        cls.told.append(text)


class QgsProcessingUtils:
    """Names a temporary folder."""

    folder = tempfile.mkdtemp(prefix="rest-qt6-")

    @classmethod
    def tempFolder(cls) -> str:
        return cls.folder


class QgsProcessingProvider(QObject):
    """Knows its algorithms' names only."""


class QgsCoordinateReferenceSystem:
    """An unknown coordinate system."""

    def isValid(self) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QgsCoordinateReferenceSystem)

    __hash__ = None


class QgsGeometry:
    """A polygon nobody looks into."""

    def __init__(self, other: Any = None) -> None:
        self.other = other

    @staticmethod
    def fromPolygonXY(rings: Any) -> QgsGeometry:
        return QgsGeometry(rings)


class QgsMapLayer(QObject):
    """A layer with a name."""

    willBeDeleted = pyqtSignal()

    def __init__(self, name: str = "a scene") -> None:
        super().__init__()
        self._name = name

    def name(self) -> str:
        return self._name

    def isValid(self) -> bool:
        return True

    def customProperty(self, _name: str) -> Any:
        return None


class QgsRasterLayer(QgsMapLayer):
    """A raster whose extent holds everything."""

    def crs(self) -> QgsCoordinateReferenceSystem:
        return QgsCoordinateReferenceSystem()

    def extent(self) -> Any:
        return SimpleNamespace(contains=lambda _point: True)

    def providerType(self) -> str:
        return "gdal"

    def source(self) -> str:
        return __file__


class QgsVectorLayer(QgsMapLayer):
    """Polygons, some of them selected."""

    selectionChanged = pyqtSignal()
    selected = 0

    def selectedFeatureCount(self) -> int:
        return self.selected


class QgsProviderRegistry:
    """Says where a layer's file is."""

    @classmethod
    def instance(cls) -> QgsProviderRegistry:
        return cls()

    def decodeUri(self, _provider: str, source: str) -> dict[str, str]:
        return {"path": source}


class QgsProject(QObject):
    """A project without layers."""

    readProject = pyqtSignal(object)
    writeMapLayer = pyqtSignal(object, object, object)
    projectSaved = pyqtSignal()
    cleared = pyqtSignal()
    layersAdded = pyqtSignal(object)
    layersRemoved = pyqtSignal(object)
    _one: QgsProject | None = None

    @classmethod
    def instance(cls) -> QgsProject:
        cls._one = cls._one or cls()
        return cls._one

    def mapLayers(self) -> dict[str, QgsMapLayer]:
        return {}

    def readEntry(self, *_: Any) -> tuple[str, bool]:
        return "", False

    def readListEntry(self, *_: Any) -> tuple[list[str], bool]:
        return [], False

    def writeEntry(self, *_: Any) -> bool:
        return True

    def removeEntry(self, *_: Any) -> bool:
        return True

    def fileName(self) -> str:
        return ""


class QgsTask(QObject):
    """A task that is run when it is added."""

    Flag = SimpleNamespace(CanCancel=2)

    def __init__(self, title: str, flags: Any = None) -> None:
        super().__init__()
        self._cancelled = False

    def setProgress(self, percent: float) -> None:
        pass

    def isCanceled(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        self._cancelled = True


class QgsApplication:
    """Its managers and icons."""

    tasks: list[QgsTask] = []

    @staticmethod
    def taskManager() -> Any:
        def add(task: QgsTask) -> None:
            QgsApplication.tasks.append(task)
            task.finished(task.run())

        return SimpleNamespace(addTask=add)

    @staticmethod
    def processingRegistry() -> Any:
        return SimpleNamespace(addProvider=lambda _provider: True, removeProvider=lambda _provider: True)

    @staticmethod
    def getThemeIcon(_name: str) -> QIcon:
        return QIcon()


class QgsDockWidget(QDockWidget):
    """A dock."""

    def setUserVisible(self, shown: bool) -> None:
        self.setVisible(shown)


class QgsFileWidget(QWidget):
    """A line for a path."""

    StorageMode = SimpleNamespace(SaveFile=3)
    fileChanged = pyqtSignal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._line = QLineEdit(self)
        QHBoxLayout(self).addWidget(self._line)
        self._line.textChanged.connect(self.fileChanged)

    def lineEdit(self) -> QLineEdit:
        return self._line

    def filePath(self) -> str:
        return self._line.text()

    def setFilePath(self, path: str) -> None:
        self._line.setText(path)

    def setStorageMode(self, mode: int) -> None:
        assert mode == self.StorageMode.SaveFile

    def setFilter(self, text: str) -> None:
        assert "*.tif" in text

    def setDialogTitle(self, text: str) -> None:
        assert text


class QgsMapLayerComboBox(QComboBox):
    """A list of the layers a test puts in."""

    layerChanged = pyqtSignal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._layer: QgsMapLayer | None = None

    def setFilters(self, filters: int) -> None:
        assert filters in (1, 2)

    def currentLayer(self) -> QgsMapLayer | None:
        return self._layer

    def setLayer(self, layer: QgsMapLayer | None) -> None:
        self._layer = layer
        self.layerChanged.emit(layer)


class QgsMapCanvas(QGraphicsView):
    """A canvas that draws nothing."""

    extentsChanged = pyqtSignal()
    destinationCrsChanged = pyqtSignal()

    def __init__(self) -> None:
        super().__init__(QGraphicsScene())
        self._tool: Any = None

    def mapTool(self) -> Any:
        return self._tool

    def setMapTool(self, tool: Any) -> None:
        before, self._tool = self._tool, tool
        if before is not None and before is not tool:
            before.deactivate()

    def unsetMapTool(self, tool: Any) -> None:
        self._tool = None
        tool.deactivate()

    def isDrawing(self) -> bool:
        return False

    def center(self) -> Any:
        return None

    def mapSettings(self) -> Any:
        return SimpleNamespace(destinationCrs=QgsCoordinateReferenceSystem)


class QgsMapTool(QObject):
    """A tool whose map coordinates are the screen's."""

    deactivated = pyqtSignal()

    def __init__(self, canvas: QgsMapCanvas) -> None:
        super().__init__(canvas)
        self._canvas = canvas

    def canvas(self) -> QgsMapCanvas:
        return self._canvas

    def setCursor(self, cursor: Any) -> None:
        self._canvas.setCursor(cursor)

    def deactivate(self) -> None:
        self.deactivated.emit()

    def toMapCoordinates(self, point: Any) -> tuple[int, int]:
        return point.x(), point.y()


class QgsRubberBand:
    """What is drawn on the canvas."""

    shown: list[QgsRubberBand] = []

    def __init__(self, canvas: QgsMapCanvas, kind: int) -> None:
        assert kind == QgsWkbTypes.GeometryType.PolygonGeometry
        self.geometry: Any = None
        canvas.scene().removeItem = self.shown.remove  # what the plugin takes a band off the map with
        self.shown.append(self)

    def setStrokeColor(self, color: Any) -> None:
        assert color.isValid()

    def setFillColor(self, color: Any) -> None:
        assert color.isValid()

    def setWidth(self, width: int) -> None:
        assert width > 0

    def setToGeometry(self, geometry: QgsGeometry, crs: Any) -> None:
        self.geometry = geometry


class QgsMessageBarItem(QWidget):
    """One message."""

    def __init__(self, title: str, text: str, level: int, *_: Any) -> None:
        super().__init__()
        self.message = (level, text)
        QHBoxLayout(self)

    def setDuration(self, seconds: int) -> None:
        assert seconds > 0


class QgsMessageViewer(QWidget):
    """Details of a message."""

    def setTitle(self, text: str) -> None:
        self.setWindowTitle(text)

    def setMessageAsPlainText(self, text: str) -> None:
        self.text = text

    def showMessage(self, blocking: bool) -> None:
        assert blocking is False  # no modal boxes


class WidgetWrapper(QObject):
    """The toolbox's way to a parameter's field."""

    widgetValueHasChanged = pyqtSignal(object)

    def __init__(self) -> None:
        super().__init__()
        self.widget = self.createWidget()


def install(names: set[str]) -> None:
    """Make the modules that hold them.

    Args:
        names: What the plugin imports, such as ``qgis.core.QgsProject``.
    """
    for name in sorted(names):
        module, _, thing = name.rpartition(".")
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                sys.modules[path] = ModuleType(path)
                sys.modules[path].__path__ = []
        setattr(sys.modules[module], thing, fake(thing))
        if module == "osgeo":
            sys.modules[name] = fake(thing)


def fake(name: str) -> Any:
    """Return the fake of a name; one that is missing here has to be written."""
    if name in ("gdal", "osr"):
        return ModuleType(f"osgeo.{name}")
    if name in PLAIN:
        return type(name, (), {})
    return globals()[name]
