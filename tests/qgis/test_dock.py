"""The dock, by clicks, against the real daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qgis.core import Qgis, QgsProject, QgsRasterLayer, QgsRectangle
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import QStyle
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import (
    CLASSES,
    MODEL,
    add_layer,
    make_scene,
    messages,
    open_dock,
    read,
    rest_layers,
    until,
)


def test_run_by_clicks(plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path) -> None:
    imagery = add_layer(small_scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    assert dock.run_panel.form.run_button.isEnabled()
    assert not dock.strip.cancel_button.isEnabled()
    _click(qtbot, dock.run_panel.form.run_button)
    assert not dock.run_panel.form.run_button.isEnabled()
    assert dock.strip.cancel_button.isEnabled()
    until(qtbot, dock.run_panel.form.run_button.isEnabled)

    assert messages(qgis_iface, Qgis.MessageLevel.Critical) == []
    assert len(messages(qgis_iface, Qgis.MessageLevel.Success)) == 1
    assert dock.strip.status_label.text().startswith("Done in ")
    until(qtbot, lambda: bool(rest_layers()) and rest_layers()[0].source().endswith(".tif"))
    layer = rest_layers()[0]
    assert layer.name().startswith("small scene – ")
    assert qgis_iface.activeLayer() is imagery
    result = read(layer.source())
    assert result.shape == (700, 300)
    assert set(np.unique(result)) <= {*CLASSES, 255}
    assert (result[-45:, -35:] == 255).all()
    assert (result[:600] != 255).all()


def test_card_says_what_one_must_know(plugin: RestPlugin, qtbot: Any) -> None:
    dock = open_dock(plugin, qtbot)
    text = dock.run_panel.form.card_view.text()
    for expected in ("3 bands", "red", "0.3 m", *CLASSES.values(), "IoU", "Licence", "Good for"):
        assert expected in text
    assert text.count("data:image/png") == len(CLASSES)


def test_fits_into_320_pixels(plugin: RestPlugin, qtbot: Any) -> None:
    dock = open_dock(plugin, qtbot)
    form = dock.run_panel.form
    form.card_view.more_button.click()
    form.area_box.choose("layer")
    form.output_box.confidence_box.click()
    bar = form.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
    assert form.minimumSizeHint().width() + bar <= 320
    assert dock.minimumSizeHint().width() <= 320


def test_canvas_extent_gives_that_window(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    canvas = qgis_iface.mapCanvas()
    canvas.resize(200, 200)
    canvas.setExtent(QgsRectangle(523653.0 + 30, 5267262.0 - 90, 523653.0 + 60, 5267262.0 - 60))
    shown = canvas.extent().intersect(qgis_iface.activeLayer().extent())
    dock.run_panel.form.area_box.choose("canvas")
    dock.run_panel.form.output_box.classes_widget.setFilePath(str(tmp_path / "part.tif"))
    _click(qtbot, dock.run_panel.form.run_button)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    assert messages(qgis_iface, Qgis.MessageLevel.Critical) == []
    result = QgsRasterLayer(str(tmp_path / "part.tif"))
    assert result.extent().contains(shown.buffered(-0.01))
    assert shown.buffered(0.61).contains(result.extent())
    assert read(tmp_path / "part.tif").size < 700 * 300


def test_chosen_output_is_written_with_its_legend(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    output = tmp_path / "classes.tif"
    dock.run_panel.form.output_box.classes_widget.setFilePath(str(output))
    _click(qtbot, dock.run_panel.form.run_button)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    assert output.is_file()
    opened = QgsRasterLayer(str(output))  # styled by the QML beside it, as for anyone who opens the file
    assert [(entry.value, entry.label) for entry in opened.renderer().classes()] == list(CLASSES.items())
    live = rest_layers()[0]
    assert _legend(live) == _legend(opened)


def test_cancel_leaves_nothing(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, long_scene: Path, tmp_path: Path
) -> None:
    add_layer(long_scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    folder = tmp_path / "out"
    folder.mkdir()
    dock.run_panel.form.output_box.classes_widget.setFilePath(str(folder / "classes.tif"))
    _click(qtbot, dock.run_panel.form.run_button)
    until(qtbot, lambda: dock.strip.progress_bar.value() > 0 and bool(rest_layers()))
    vrt = Path(rest_layers()[0].source())
    assert vrt.is_file()
    _click(qtbot, dock.strip.cancel_button)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    assert dock.strip.status_label.text() == "Cancelled"
    until(qtbot, lambda: not rest_layers())
    assert list(folder.iterdir()) == []
    until(qtbot, lambda: not vrt.exists() and not vrt.with_suffix(".raw").exists())


def test_tiles_without_an_area_get_a_sentence(plugin: RestPlugin, qgis_iface: Any, qtbot: Any) -> None:
    layer = QgsRasterLayer("type=xyz&url=http://127.0.0.1:9/{z}/{x}/{y}.png&zmax=1", "tiles", "wms")
    assert layer.isValid()
    QgsProject.instance().addMapLayer(layer)
    dock = open_dock(plugin, qtbot)
    _click(qtbot, dock.run_panel.form.run_button)
    (message,) = messages(qgis_iface, Qgis.MessageLevel.Critical)
    assert "has no end" in message
    assert "(E_AREA_NEEDED)" in message
    assert dock.run_panel.form.run_button.isEnabled()
    assert rest_layers() == []


def test_extent_beside_the_scene_gets_a_sentence(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path
) -> None:
    add_layer(small_scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    qgis_iface.mapCanvas().setExtent(QgsRectangle(0, 0, 100, 100))
    dock.run_panel.form.area_box.choose("canvas")
    _click(qtbot, dock.run_panel.form.run_button)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    (message,) = messages(qgis_iface, Qgis.MessageLevel.Critical)
    assert "does not touch the scene" in message


def test_error_of_the_daemon_is_shown_with_its_code(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path
) -> None:
    add_layer(make_scene(tmp_path / "one band.tif", 64, 64, bands=1), qgis_iface)
    dock = open_dock(plugin, qtbot)
    _click(qtbot, dock.run_panel.form.run_button)
    until(qtbot, dock.run_panel.form.run_button.isEnabled)
    (message,) = messages(qgis_iface, Qgis.MessageLevel.Critical)
    assert "band" in message
    assert "(E_" in message
    until(qtbot, lambda: not rest_layers())


def test_model_list_survives_a_restart_of_the_engine(plugin: RestPlugin, qtbot: Any) -> None:
    dock = open_dock(plugin, qtbot)
    plugin.toolbar.stop_action.trigger()
    until(qtbot, lambda: plugin.toolbar.engine_button.text() == "Off")
    plugin.toolbar.start_action.trigger()
    until(qtbot, lambda: plugin.toolbar.engine_button.text() == "Idle")
    assert dock.run_panel.form.model_combo.currentData() == MODEL


def _click(qtbot: Any, button: Any) -> None:
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def _legend(layer: QgsRasterLayer) -> list[tuple[int, str, str]]:
    return [(entry.value, entry.label, QColor(entry.color).name()) for entry in layer.renderer().classes()]
