"""The band table on real scenes, filled by the real daemon's plans, changed by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal

from qgis.core import Qgis
from qgis.PyQt.QtCore import Qt
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import MODEL, REPOSITORY, add_layer, messages, open_dock, read, rest_layers, until

DATA = REPOSITORY.parent / "shared" / "data"
VEGETATION = "test-vegetation"  # reads near infrared, red and short-wave infrared
_MAKE_WEIGHTS = """
import json, sys, torch
from pathlib import Path
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network
from rest_backend.models.weights import save_weights
card = json.loads(sys.stdin.read())
torch.manual_seed(0)
network = build_network(Architecture(**card["architecture"]), len(card["bands"]), len(card["classes"])).eval()
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
card["sha256"] = save_weights(network, folder / f"{card['id']}.safetensors")
(folder / f"{card['id']}.json").write_text(json.dumps(card))
"""


@pytest.fixture(scope="module")
def vegetation_model(engine_home: Path) -> str:
    """An installed model of other bands than red, green and blue; its weights are random."""
    card = {
        "format": 1,
        "id": VEGETATION,
        "name": "Vegetation (test)",
        "architecture": {
            "encoder": "tu-resnet10t",
            "decoder": "unet",
            "parameters": {"decoder_channels": [16, 8, 8, 8, 8]},
        },
        "bands": [
            {"name": "near infrared", "role": "nir", "wavelength_nm": 842},
            {"name": "red", "role": "red", "wavelength_nm": 665},
            {"name": "short wave", "role": "swir1", "wavelength_nm": 1610},
        ],
        "ground_resolution_m": {"expected": 10, "minimum": 5, "maximum": 40},
        "normalisation": {"method": "scene"},
        "classes": [
            {"id": 0, "name": "bare", "color": "#a08060"},
            {"id": 1, "name": "green", "color": "#208040"},
        ],
        "licence": "CC0-1.0",
    }
    command = [REPOSITORY / ".venv" / "bin" / "python", "-c", _MAKE_WEIGHTS, engine_home / "models"]
    subprocess.run(command, input=json.dumps(card), text=True, check=True, timeout=120)
    return VEGETATION


# Scene, its bands (None: all), and for both models the bands found and how.
SCENES = {
    1: (
        "multispectral/rotated_geotransform_20x20.tif",
        None,
        ((None,) * 3, "missing"),
        ((None,) * 3, "missing"),
    ),
    3: (
        "multispectral/landsat8_itaipu_b2b3b4.tif",  # blue, green, red: the first three would be wrong
        None,
        ((3, 2, 1), "name"),
        ((None, 3, None), "missing name missing"),
    ),
    4: (
        "multispectral/landsat7_olinda_6band.tif",
        [1, 2, 3, 4],
        ((1, 2, 3), "order"),
        ((4, 1, None), "order order missing"),
    ),
    6: ("multispectral/landsat7_olinda_6band.tif", None, ((3, 2, 1), "order"), ((4, 3, 5), "order")),
    13: ("sar_optical_flood/spain_s2_13band.tif", None, ((4, 3, 2), "name"), ((8, 4, 12), "name")),
    224: (
        "hyperspectral/enmap_potsdam_224band.tif",
        None,
        ((47, 30, 15), "wavelength"),
        ((72, 48, 149), "wavelength"),
    ),
}


@pytest.mark.parametrize("count", SCENES)
def test_real_scenes(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path, vegetation_model: str, count: int
) -> None:
    name, bands, *expected = SCENES[count]
    scene = _copy(name, tmp_path, bands)
    add_layer(scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    form = dock.run_panel.form
    table = form.band_table
    for model, (found, how) in zip((MODEL, vegetation_model), expected, strict=True):
        form.model_combo.setCurrentIndex(form.model_combo.findData(model))
        assert not table.isVisibleTo(form)  # what was matched was for something else
        _wait_for_plan(dock, qtbot)
        assert table.table.rowCount() == 3
        assert table.combo(0).count() == 1 + count
        ways = how.split() if " " in how else [how] * 3
        assert [table.combo(row).currentData() for row in range(3)] == list(found)
        assert [_way(table, row) for row in range(3)] == [_SHOWN[way] for way in ways]
        unsure = [way in ("order", "missing") for way in ways]
        assert [_red(table, row) for row in range(3)] == unsure
        assert table.line.isVisibleTo(form) is any(unsure)
        assert table.bands() == ()
        missing = "missing" in ways
        assert form.run_button.isEnabled() is not missing
        if missing:
            assert "Choose a band of the scene for" in form.run_button.toolTip()
            assert form.run_button.toolTip() == table.line.text()


def test_missing_bands_are_chosen_and_double_ones_refused(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, tmp_path: Path, vegetation_model: str
) -> None:
    scene = _copy("multispectral/landsat7_olinda_6band.tif", tmp_path, [1, 2, 3, 4])
    add_layer(scene, qgis_iface)
    dock = open_dock(plugin, qtbot)
    form = dock.run_panel.form
    form.model_combo.setCurrentIndex(form.model_combo.findData(vegetation_model))
    _wait_for_plan(dock, qtbot)
    table = form.band_table
    assert "short wave" in form.run_button.toolTip()
    _pick(table, 2, 1)  # taken by red already
    assert "chosen twice: 1" in form.run_button.toolTip()
    assert [_way(table, row) for row in range(3)] == ["assumed", "twice", "twice"]
    assert not form.run_button.isEnabled()
    _pick(table, 2, 3)
    assert [_red(table, row) for row in range(3)] == [True, True, False]
    assert form.run_button.isEnabled()  # an assumption does not stop anybody
    assert table.bands() == (4, 1, 3)
    _wait_for_plan(dock, qtbot)
    assert [_way(table, row) for row in range(3)] == ["assumed", "assumed", "chosen"]
    qtbot.mouseClick(table.confirm_button, Qt.MouseButton.LeftButton)
    assert [_red(table, row) for row in range(3)] == [False] * 3
    assert not table.line.isVisibleTo(form)


def test_chosen_bands_are_those_that_are_read(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, long_scene: Path, tmp_path: Path
) -> None:
    """A scene with red and blue exchanged, read through the table, gives the classes of the scene itself."""
    plain, turned = tmp_path / "plain.tif", tmp_path / "turned.tif"
    gdal.Translate(
        str(plain), str(long_scene), srcWin=[300, 300, 256, 256], creationOptions=["PHOTOMETRIC=RGB"]
    )
    gdal.Translate(str(turned), str(plain), bandList=[3, 2, 1], creationOptions=["PHOTOMETRIC=MINISBLACK"])
    results = []
    dock = None
    for scene, bands in ((plain, None), (turned, (3, 2, 1))):
        add_layer(scene, qgis_iface)
        dock = dock or open_dock(plugin, qtbot)
        form = dock.run_panel.form
        form.layer_combo.setLayer(qgis_iface.activeLayer())
        _wait_for_plan(dock, qtbot)
        for row, band in enumerate(bands or ()):
            _pick(form.band_table, row, band)
        results.append(tmp_path / f"{scene.stem}_classes.tif")
        form.output_box.classes_widget.setFilePath(str(results[-1]))
        assert form.run_button.isEnabled()
        qtbot.mouseClick(form.run_button, Qt.MouseButton.LeftButton)
        until(qtbot, form.run_button.isEnabled)
    assert messages(qgis_iface, Qgis.MessageLevel.Critical) == []
    first, second = (read(path) for path in results)
    assert (first == second).all()
    assert len(rest_layers()) == 2


_SHOWN = {
    "name": "name",
    "wavelength": "wavelength",
    "colour": "colour",
    "order": "assumed",
    "missing": "missing",
}


def _copy(name: str, folder: Path, bands: list[int] | None) -> Path:
    """A part of a shared scene, where QGIS may write beside it."""
    if not DATA.is_dir():
        pytest.skip("the shared sample data lies beside the developers' checkouts only")
    source = gdal.Open(str(DATA / name))
    size = [min(160, source.RasterXSize), min(160, source.RasterYSize)]
    target = folder / f"{Path(name).stem}.tif"
    gdal.Translate(str(target), source, srcWin=[0, 0, *size], bandList=bands)
    return target


def _wait_for_plan(dock: Any, qtbot: Any) -> None:
    form = dock.run_panel.form
    until(qtbot, lambda: "Planning" not in form.plan_line.text() and form.band_table.isVisibleTo(form))


def _pick(table: Any, row: int, band: int) -> None:
    """Choose as a person does."""
    combo = table.combo(row)
    combo.setCurrentIndex(combo.findData(band))
    combo.activated.emit(combo.currentIndex())


def _way(table: Any, row: int) -> str:
    return table.table.item(row, 2).text()


def _red(table: Any, row: int) -> bool:
    items = [table.table.item(row, column) for column in range(3)]
    assert all(item.toolTip() for item in items)
    (style,) = {item.background().style() for item in items}
    return style != Qt.BrushStyle.NoBrush
