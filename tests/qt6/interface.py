"""The interface QGIS hands to a plugin, as far as the plugin uses it."""

from __future__ import annotations

from typing import Any

from PyQt6.QtCore import QObject, pyqtSignal
from PyQt6.QtWidgets import QMainWindow

from tests.qt6.fakes import QgsMapCanvas, QgsMapLayer, QgsMessageBarItem, QgsRasterLayer


class Bar:
    """The message bar."""

    def __init__(self) -> None:
        self.shown: list[QgsMessageBarItem] = []

    def items(self) -> list[QgsMessageBarItem]:
        return list(self.shown)

    def pushItem(self, item: QgsMessageBarItem) -> None:
        self.shown.append(item)

    def popWidget(self, item: QgsMessageBarItem) -> None:
        self.shown.remove(item)


class Interface(QObject):
    """What QGIS hands to a plugin, with one raster layer that is active."""

    currentLayerChanged = pyqtSignal(object)
    initializationCompleted = pyqtSignal()

    def __init__(self) -> None:
        super().__init__()
        self.window, self.canvas, self.bar = QMainWindow(), QgsMapCanvas(), Bar()
        self.layer = QgsRasterLayer()

    def mainWindow(self) -> QMainWindow:
        return self.window

    def mapCanvas(self) -> QgsMapCanvas:
        return self.canvas

    def messageBar(self) -> Bar:
        return self.bar

    def activeLayer(self) -> QgsMapLayer:
        return self.layer

    def addToolBar(self, bar: Any) -> None:
        self.window.addToolBar(bar)

    def addDockWidget(self, area: Any, dock: Any) -> None:
        self.window.addDockWidget(area, dock)

    def removeDockWidget(self, dock: Any) -> None:
        self.window.removeDockWidget(dock)

    def addPluginToRasterMenu(self, _name: str, _action: Any) -> None:
        pass

    def removePluginRasterMenu(self, _name: str, _action: Any) -> None:
        pass
