"""A QGIS that hands in a job, saves its project, and closes or is killed. For test_coming_back.py."""

from __future__ import annotations

import sys
from pathlib import Path

from pytest_qgis.mock_qgis_classes import MockMessageBar
from pytest_qgis.qgis_interface import QgisInterface

from qgis.core import QgsApplication, QgsProject, QgsRasterLayer
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QCoreApplication, QSettings
from qgis.PyQt.QtWidgets import QMainWindow
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import order_for


def main(profile: str, end: str, scene: str, output: str, project: str) -> None:
    QSettings.setDefaultFormat(QSettings.Format.IniFormat)
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, profile)
    QCoreApplication.setOrganizationName(QgsApplication.QGIS_ORGANIZATION_NAME)
    QCoreApplication.setApplicationName(QgsApplication.QGIS_APPLICATION_NAME)
    application = QgsApplication([], True, profile)
    application.initQgis()
    # Later releases of QGIS choose a place of their own meanwhile.
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, profile)
    window = QMainWindow()
    canvas = QgsMapCanvas(window)
    interface = QgisInterface(canvas, MockMessageBar(), window)
    plugin = RestPlugin(interface)
    plugin.initGui()
    QgsProject.instance().addMapLayer(QgsRasterLayer(scene, Path(scene).stem))

    def live() -> bool:
        return any(layer.customProperty("rest/job") for layer in QgsProject.instance().mapLayers().values())

    plugin.link.segment(order_for(Path(scene), Path(output)))
    while not live():
        application.processEvents()
    if project:
        assert QgsProject.instance().write(project)
    print("left", flush=True)
    while end == "killed":
        application.processEvents()
    plugin.unload()
    QgsProject.instance().clear()
    application.exitQgis()


if __name__ == "__main__":
    main(*sys.argv[1:])
