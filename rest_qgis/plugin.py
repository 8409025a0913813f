"""Registers the toolbar, the dock and the Processing provider; nothing else."""

from __future__ import annotations

import threading
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, Qt

from .gui.coming_back import ComingBack
from .gui.dock import SegmentDock
from .gui.jobs_panel import JobsPanel
from .gui.link import EngineLink
from .gui.messages import Messages
from .gui.toolbar import RestToolbar
from .install.folder import tidy_results
from .layers.live_layers import LiveLayers
from .processing.desk import JobDesk
from .processing.provider import RestProvider


class RestPlugin:
    """The plugin as QGIS's plugin manager sees it.

    Args:
        interface: The running QGIS's ``QgisInterface``; None under ``qgis_process``.
    """

    def __init__(self, interface: Any) -> None:
        self._interface = interface
        self.desk = JobDesk()
        self.provider: RestProvider | None = None
        self.messages: Messages | None = None
        self.link: EngineLink | None = None
        self.live_layers: LiveLayers | None = None
        self.coming_back: ComingBack | None = None
        self.toolbar: RestToolbar | None = None
        self.dock: SegmentDock | None = None
        self.jobs_panel: JobsPanel | None = None

    def initProcessing(self) -> None:
        """Register the algorithms; all that ``qgis_process`` needs."""
        if self.provider is None:
            self.provider = RestProvider(self.desk)
            QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register everything a person sees."""
        if self.toolbar is not None:
            return
        self.initProcessing()
        self.desk.keep_engine = True
        threading.Thread(target=tidy_results, name="rest-tidy", daemon=True).start()
        self.messages = Messages(self._interface)
        self.link = EngineLink(self.desk)
        self.live_layers = LiveLayers(self._interface.mapCanvas())
        self.live_layers.trouble.connect(self.messages.warning)
        self.desk.observe(self.live_layers.listen)
        self.coming_back = ComingBack(self._interface, self.desk, self.link, self.live_layers, self.messages)

        self.dock = SegmentDock(self._interface, self.link)
        self.jobs_panel = JobsPanel(self._interface, self.link, self.live_layers, self.messages)
        self.dock.add_panel(self.jobs_panel, QCoreApplication.translate("RestPlugin", "Jobs"))
        self._interface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.dock)
        self.dock.setUserVisible(False)
        self.toolbar = RestToolbar(self._interface, self.link)
        self._interface.addToolBar(self.toolbar)
        self.toolbar.segment_action.triggered.connect(self._show_dock)
        self.toolbar.jobs_action.triggered.connect(self._toggle_jobs)
        self.jobs_panel.seen_changed.connect(self.toolbar.jobs_action.setChecked)
        self._interface.addPluginToRasterMenu("REST", self.toolbar.segment_action)

    def unload(self) -> None:
        """Take everything back; running jobs go on in the daemon. May be called twice."""
        if self.jobs_panel is not None and self.toolbar is not None:
            self.jobs_panel.seen_changed.disconnect(self.toolbar.jobs_action.setChecked)
            self.jobs_panel.close_link()
            self.jobs_panel = None  # the dock's own
        if self.toolbar is not None:
            self._interface.removePluginRasterMenu("REST", self.toolbar.segment_action)
            self.toolbar.segment_action.triggered.disconnect(self._show_dock)
            self.toolbar.jobs_action.triggered.disconnect(self._toggle_jobs)
            self.toolbar.close_link()
            self._interface.mainWindow().removeToolBar(self.toolbar)
            self.toolbar.deleteLater()
            self.toolbar = None
        if self.dock is not None:
            self.dock.close_link()
            self._interface.removeDockWidget(self.dock)
            self.dock.deleteLater()
            self.dock = None
        if self.coming_back is not None:
            self.coming_back.close()
            self.coming_back = None
        if self.live_layers is not None:
            self.desk.forget(self.live_layers.listen)
            self.live_layers.close()
            self.live_layers = None
        if self.link is not None:
            self.link.close()
            self.link = None
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None
        if self.messages is not None:
            self.messages.close()
            self.messages = None
        self.desk.keep_engine = False
        self.desk.close()

    def _show_dock(self) -> None:
        if self.dock is not None and self.link is not None:
            self.dock.setUserVisible(True)
            self.dock.show_panel(self.dock.run_panel)
            self.dock.raise_()
            self.link.start()

    def _toggle_jobs(self, shown: bool) -> None:
        if self.dock is not None and self.jobs_panel is not None:
            if shown:
                self.dock.show_panel(self.jobs_panel)
            self.dock.setUserVisible(shown)
