"""Scenes, layers and waiting for the tests of the plugin."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal, osr

from qgis.core import Qgis, QgsProject, QgsRasterLayer
from qgis.gui import QgsMessageBarItem
from qgis.PyQt.QtCore import QCoreApplication, QEvent
from rest_qgis.client import Engine
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing.desk import Order
from rest_qgis.processing.models import ModelClass

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "kitsap-buildings"
CLASSES = {0: "background", 1: "building"}
COLORS = {0: "#303030", 1: "#e06030"}
END_MILLISECONDS = 120_000  # a job's end on a machine others use too


def make_scene(path: Path, width: int, height: int, bands: int = 3, crs: bool = True) -> Path:
    """Write an 8-bit scene with shapes to find; its last 40 columns of the last 50 rows are nodata (0)."""
    random = np.random.default_rng(7)
    values = random.integers(60, 90, (bands, height, width), dtype=np.uint8)
    for row in range(20, height - 60, 80):
        values[:, row : row + 40, 40:110] = 210
    values[:, -50:, -40:] = 0
    scene = gdal.GetDriverByName("GTiff").Create(str(path), width, height, bands, gdal.GDT_Byte)
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(26910)
    if crs:
        scene.SetSpatialRef(reference)
    scene.SetGeoTransform((523653.0, 0.3, 0.0, 5267262.0, 0.0, -0.3))
    for number in range(bands):
        band = scene.GetRasterBand(number + 1)
        band.WriteArray(values[number])
        band.SetNoDataValue(0)
    scene.FlushCache()
    return path


def end_engine(home: Path) -> None:
    """End the daemon of a home; none may be left behind."""
    errors: list[Any] = []
    ended = threading.Event()
    with Engine(home=home) as engine:
        engine.shutdown(lambda error: (errors.append(error), ended.set()))
        assert ended.wait(30), "the daemon did not answer"
    assert errors == [None]


def add_layer(path: Path, interface: Any) -> QgsRasterLayer:
    """Open a scene as a person does: it becomes the active layer, and the canvas shows it."""
    layer = QgsRasterLayer(str(path), path.stem)
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    interface.setActiveLayer(layer)
    interface.mapCanvas().setDestinationCrs(layer.crs())
    interface.mapCanvas().setExtent(layer.extent())
    return layer


def order_for(scene: Path, output: Path, **fields: Any) -> Order:
    """A job for the bundled model, as the dock would make it."""
    classes = [ModelClass(number, name, COLORS[number]) for number, name in CLASSES.items()]
    return Order(
        scene=str(scene),
        model=MODEL,
        output=str(output),
        classes=classes,
        **{"title": f"{scene.stem} – {output.stem}", **fields},
    )


def open_dock(plugin: RestPlugin, qtbot: Any) -> Any:
    """Press *Segment* and wait for the list of models."""
    plugin.toolbar.segment_action.trigger()
    dock = plugin.dock
    qtbot.addWidget(dock, before_close_func=lambda _widget: None)
    dock.resize(320, 700)
    qtbot.waitUntil(lambda: dock.run_panel.form.model_combo.findData(MODEL) >= 0, timeout=END_MILLISECONDS)
    return dock


def rest_layers() -> list[QgsRasterLayer]:
    """The project's layers that jobs made."""
    return [layer for layer in QgsProject.instance().mapLayers().values() if layer.customProperty("rest/job")]


def wait_for_layer(qtbot: Any) -> QgsRasterLayer:
    """Wait for the one live layer."""
    qtbot.waitUntil(lambda: len(rest_layers()) == 1, timeout=END_MILLISECONDS)
    return rest_layers()[0]


def read(path: Path | str) -> np.ndarray:
    """Read the first band of a raster."""
    dataset = gdal.Open(str(path))  # a band dies with its dataset
    return dataset.GetRasterBand(1).ReadAsArray()


def watch_messages(interface: Any) -> None:
    """Note every message the bar shows from now on, for :func:`messages`."""
    interface.shown_messages = []
    interface.messageBar().clearWidgets()

    def note(item: QgsMessageBarItem) -> None:
        interface.shown_messages.append((item.level(), item.text()))

    interface.note_message = note
    interface.messageBar().widgetAdded.connect(note)


def unwatch_messages(interface: Any) -> None:
    """Undo :func:`watch_messages`."""
    interface.messageBar().widgetAdded.disconnect(interface.note_message)


def messages(interface: Any, level: Qgis.MessageLevel) -> list[str]:
    """What the message bar showed at a level, oldest first."""
    return [text for shown, text in interface.shown_messages if shown == level]


def flush_events() -> None:
    """Carry out what waits for the event loop, deletions too."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QCoreApplication.processEvents()


def until(qtbot: Any, condition: Callable[[], bool]) -> None:
    """Wait for a condition as long as a job may take."""
    qtbot.waitUntil(condition, timeout=END_MILLISECONDS)
