"""Modules that need Qt alone, built and driven under Qt 6. Run by ``test_qt6.py`` in a process of its own."""

from __future__ import annotations

import importlib
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.qt6 import modules, shim
from tests.qt6.plans import RGB, plan

shim.install()

from qgis.PyQt.QtCore import QT_VERSION_STR, QEvent, QPoint, QPointF, Qt  # noqa: E402
from qgis.PyQt.QtGui import QWheelEvent  # noqa: E402
from qgis.PyQt.QtTest import QTest  # noqa: E402
from qgis.PyQt.QtWidgets import QApplication  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def application() -> Any:
    return QApplication.instance() or QApplication([])


def test_this_is_qt_6_without_qgis() -> None:
    assert QT_VERSION_STR.startswith("6.")
    with pytest.raises(ImportError):
        importlib.import_module("qgis.core")


@pytest.mark.parametrize("name", modules.qt_alone())
def test_imports(name: str) -> None:
    importlib.import_module(name)
    assert "PyQt5" not in sys.modules


def test_every_module_is_driven_here() -> None:
    driven = {name.removeprefix("test_drives_") for name in globals() if name.startswith("test_drives_")}
    assert driven == {name.rpartition(".")[2] for name in modules.qt_alone()}


# --- one a module ---------------------------------------------------------------------


def test_drives_band_table() -> None:
    from rest_qgis.gui.band_table import BandTable

    table = BandTable()
    assert not table.isVisibleTo(table.parentWidget())
    heard: list[int] = []
    table.changed.connect(lambda: heard.append(1))

    table.show_plan(plan("name"))
    assert table.bands() == ()  # nobody chose: the backend matches
    assert (table.trouble(), table.doubts()) == ("", [])
    assert [_red(table, row) for row in range(3)] == [False] * 3
    assert table.combo(1).currentText() == "2: B2"

    table.show_plan(plan("order"))
    assert table.trouble() == ""
    assert table.doubts() == list(RGB)
    assert [_red(table, row) for row in range(3)] == [True] * 3
    assert "please check: red, green, blue" in table.line.text()
    _pick(table, 0, 3)
    assert heard == [1]
    assert table.doubts() == ["green", "blue"]
    assert "only once; chosen twice: 3" in table.trouble()
    assert [_red(table, row) for row in range(3)] == [True, True, True]
    _pick(table, 2, 1)
    assert table.trouble() == ""
    assert table.bands() == (3, 2, 1)
    assert [_red(table, row) for row in range(3)] == [False, True, False]
    given = plan("given", (3, 2, 1))
    table.show_plan(given)  # the answer to what was chosen changes nothing
    assert table.doubts() == ["green"]
    QTest.mouseClick(table.confirm_button, Qt.MouseButton.LeftButton)
    assert table.doubts() == []
    assert table.bands() == (3, 2, 1)
    assert heard == [1, 1, 1]

    table.clear()
    table.show_plan(plan("name", (1, None, 2), count=2))
    assert "green" in table.trouble()
    assert table.bands() == ()
    assert [_red(table, row) for row in range(3)] == [False, True, False]
    assert table.combo(1).currentText() == "choose…"

    table.clear()
    table.show_plan(plan("order", (3, 2, 1), count=224))
    assert table.combo(0).count() == 1 + 224
    many = plan("name", (1, 2, 3), count=60)
    many["bands"] = [dict(many["bands"][0], model=f"b{n}", band=n, sure=False) for n in range(1, 61)]
    table.clear()
    table.show_plan(many)
    while table.table.item(59, 0) is None:  # rows are made in slices
        QApplication.processEvents()
    assert table.combo(59).currentData() == 60
    assert _red(table, 59)
    assert "b8 (+52)" in table.line.text()

    table.clear()
    table.show_plan(plan("order", (3, 2, 1), count=224))
    wheel = QWheelEvent(
        QPointF(2, 2),
        QPointF(2, 2),
        QPoint(0, -120),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(table.combo(0), wheel)  # scrolling past must not choose
    assert table.combo(0).currentData() == 3
    assert wheel.type() == QEvent.Type.Wheel
    assert not wheel.isAccepted()


def test_drives_card_view() -> None:
    from rest_qgis.gui.card_view import CardView

    classes = [SimpleNamespace(id=n, name=f"class {n} & more", color="#102030") for n in range(30)]
    model = SimpleNamespace(
        bands=RGB,
        classes=classes,
        resolution=(0.3, 0.2, 0.5),
        licence="free",
        good_for="Houses.",
        limits="RGB only.",
        score={"classes": [{"id": 3, "iou": 0.634}], "data": "a field"},
    )
    view = CardView()
    view.show_text("a < b")
    assert "a &lt; b" in view.text()
    view.show_model(model)
    text = view.text()
    for expected in (
        "3 bands",
        "0.3 m",
        "class&nbsp;0&nbsp;&amp;&nbsp;more",
        "+6",
        "0.63",
        "houses.",
        "RGB only.",
    ):
        assert expected in text
    assert text.count("data:image/png") == 24
    rest = view.findChild(type(view._rest), "RestModelCardRest")
    assert not rest.isVisibleTo(view)
    QTest.mouseClick(view.more_button, Qt.MouseButton.LeftButton)
    assert rest.isVisibleTo(view)


def test_drives_detail_box() -> None:
    from rest_qgis.gui.detail_box import DetailBox

    box = DetailBox()
    heard: list[int] = []
    box.changed.connect(lambda: heard.append(1))
    assert box.resolution() == 0.0
    box.show_model((0.3, 0.2, 0.5))
    assert box.warning.text() == ""  # the scene's resolution is not known yet
    box.show_plan(plan(ground_resolution_m=0.3))
    assert "0.30 m" in box.own_button.text()
    assert box.warning.text() == ""
    box.show_plan(plan(ground_resolution_m=10.0))
    assert "0.20 m to 0.50 m" in box.warning.text()
    assert "10 m" in box.warning.text()
    QTest.mouseClick(box.expected_button, Qt.MouseButton.LeftButton)
    assert box.resolution() == 0.3
    assert box.warning.text() == ""
    assert heard
    box.spin_box.setValue(2.0)
    assert "2 m" in box.warning.text()
    box.own_button.setChecked(True)
    assert box.resolution() == 0.0
    box.clear()
    assert box.warning.text() == ""


def test_drives_plan_line() -> None:
    from rest_qgis.gui.plan_line import PlanLine, lacking

    line = PlanLine()
    asked: list[int] = []
    line.start_asked.connect(lambda: asked.append(1))
    line.show_off()
    assert "engine is off" in line.text()
    line.label.linkActivated.emit("start")
    assert asked == [1]
    line.show_asking()
    assert "Planning" in line.text()
    line.show_plan(plan(notes=["a < b"]))
    text = line.text().replace("\u00a0", " ").replace("\u2011", "-")
    for expected in (
        "2560 × 1280 px",
        "3 bands",
        "CPU",
        "512-row stripes",
        "1.4 GB",
        "6.6 MB",
        "about 30 s",
    ):
        assert expected in text
    assert "color" not in text
    assert "a &lt; b" in line.label.toolTip()
    assert "measured on this computer" in line.label.toolTip()
    problems = [
        {"code": "E_MEMORY_LIMIT", "message": "Needs 1.4 GB; the smallest limit that works is 0.9 GB."},
        {"code": "E_BANDS_UNSURE", "message": "said by the table"},
    ]
    line.show_plan(plan(fits=False, problems=problems))
    assert "0.9 GB" in line.text()
    assert "color" in line.text()
    assert "said by the table" not in line.text()
    assert lacking(plan(fits=False, problems=problems)) == problems[0]["message"]
    assert lacking(plan(fits=False, problems=problems[1:])) == ""
    line.show_refusal("E_SCENE_FORMAT", "No raster.")
    assert "No raster." in line.text()
    assert "E_SCENE_FORMAT" in line.label.toolTip()


def test_drives_status_strip() -> None:
    from rest_qgis.gui.status_strip import StatusStrip

    strip = StatusStrip()
    cancelled: list[int] = []
    strip.cancel_asked.connect(lambda: cancelled.append(1))
    strip.show_engine("ready")
    assert strip.status_label.text() == "Engine: Idle"
    assert not strip.cancel_button.isEnabled()
    strip.show_work("Copying the layer…", 0.25)
    assert strip.progress_bar.value() == 25
    progress = SimpleNamespace(
        stage="sweep",
        rows_done=30,
        rows=60,
        rows_per_second=10.0,
        eta_seconds=3.0,
        device="cpu",
        memory_bytes=1_500_000_000,
    )
    strip.show_progress(progress)
    assert strip.progress_bar.value() == 50
    assert strip.status_label.text() == "Segmenting: row 30 of 60"
    assert strip.detail_label.text() == "10 rows/s · 0:03 left · cpu · 1.5 GB"
    strip.show_engine("unresponsive")
    assert strip.status_label.text().startswith("Segmenting")
    QTest.mouseClick(strip.cancel_button, Qt.MouseButton.LeftButton)
    assert cancelled == [1]
    strip.show_progress(progress)
    assert strip.status_label.text() == "Cancelling…"
    strip.show_engine("ready")
    strip.show_idle("Cancelled")
    assert not strip.busy
    strip.show_engine("busy")  # with another job: what came of the last one stays
    assert strip.status_label.text() == "Cancelled"
    strip.show_engine("stopped")
    assert strip.status_label.text() == "Engine: Off"
    strip.show_work("Starting…")
    assert strip.cancel_button.isEnabled()


def test_drives_wording() -> None:
    from rest_qgis.gui import wording

    assert [wording.duration(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
    times = (0.4, 7.6, 43, 400, 9000)
    assert [wording.about(s) for s in times] == [
        "less than 1 s",
        "about 8 s",
        "about 45 s",
        "about 7 min",
        "about 2.5 h",
    ]
    sizes = (0, 900, 999_499, 999_600, 1.4e9, 12e9, 3e15)
    assert [wording.size_text(s) for s in sizes] == [
        "0.0 kB",
        "0.9 kB",
        "999 kB",
        "1.0 MB",
        "1.4 GB",
        "12 GB",
        "3.0 PB",
    ]
    metres = (0.018, 0.3, 10.0, 28.5, 1113.2)
    assert [wording.resolution_text(m) for m in metres] == ["0.018 m", "0.30 m", "10 m", "28.5 m", "1113 m"]
    assert [wording.percent(s) for s in (0, 0.001, 0.5, 0.999, 1)] == [
        "0 %",
        "< 1 %",
        "50 %",
        "> 99 %",
        "100 %",
    ]
    assert wording.band_text(4, "B4 red", 664.6) == "4: B4 red (665 nm)"
    assert (
        wording.band_text(47, "band 47 (660.007 Nanometers)", 660.007) == "47: band 47 (660.007 Nanometers)"
    )
    assert wording.band_text(4, "", None) == "Band 4"
    work, _cost = wording.plan_lines(
        plan(area_pixels=327_680, resolution_m=0.6, run_width=1280, run_height=640)
    )
    work = work.replace("\u00a0", " ")
    assert "10 % in the area" in work
    assert "network sees 1280 × 640" in work
    assert wording.plan_lines(plan(seconds=None))[1].endswith("time\u00a0unknown")
    assert wording.plan_lines(plan(seconds=None, memory_bytes=0, output_bytes=0))[1] == ""
    details = " ".join(wording.plan_details(plan(fallback_ops=["my::op"])))
    assert "my::op" in details
    assert "100 GB free" in details


def test_drives_main_thread() -> None:
    from rest_qgis.layers.main_thread import MainThread

    main, ran = MainThread(), []
    worker = threading.Thread(target=lambda: main.post(lambda: ran.append(threading.current_thread())))
    worker.start()
    worker.join()
    assert ran == []
    QApplication.processEvents()
    assert ran == [threading.main_thread()]


def _pick(table: Any, row: int, band: int) -> None:
    """Choose as a person does."""
    combo = table.combo(row)
    combo.setCurrentIndex(combo.findData(band))
    combo.activated.emit(combo.currentIndex())


def _red(table: Any, row: int) -> bool:
    item = table.table.item(row, 0)
    assert item.toolTip()
    return item.background().style() != Qt.BrushStyle.NoBrush
