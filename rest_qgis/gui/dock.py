"""The dock: its tabs, and below them the strip that says how engine and job are."""

from __future__ import annotations

from typing import Any

from qgis.gui import QgsDockWidget
from qgis.PyQt.QtWidgets import QFrame, QTabWidget, QVBoxLayout, QWidget

from rest_qgis.gui.link import EngineLink
from rest_qgis.gui.messages import Messages
from rest_qgis.gui.run_panel import RunPanel
from rest_qgis.gui.status_strip import StatusStrip


class SegmentDock(QgsDockWidget):
    """The plugin's dock; all of it stays usable at 320 pixels of width.

    Attributes:
        run_panel: The tab "Segment".
        strip: The strip at the lower edge.
    """

    def __init__(self, interface: Any, link: EngineLink) -> None:
        super().__init__(interface.mainWindow())
        self.setObjectName("RestSegmentDock")
        self.setWindowTitle(self.tr("REST segmentation"))
        self.strip = StatusStrip()
        self.run_panel = RunPanel(interface, link, Messages(interface), self.strip)
        self._tabs = QTabWidget()
        self._tabs.setObjectName("RestTabs")
        self._tabs.setDocumentMode(True)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Sunken)
        content = QWidget()
        content.setObjectName("RestDockContent")
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self._tabs, 1)
        column.addWidget(line)
        column.addWidget(self.strip)
        self.setWidget(content)
        self.setMinimumWidth(280)
        self.add_panel(self.run_panel, self.tr("Segment"))

    def add_panel(self, panel: QWidget, title: str) -> None:
        """Add a tab at the end."""
        self._tabs.addTab(panel, title)

    def show_panel(self, panel: QWidget) -> None:
        """Bring a tab to the front."""
        self._tabs.setCurrentWidget(panel)

    def close_link(self) -> None:
        """Stop listening to the engine and to QGIS. May be called twice."""
        self.run_panel.close_link()
