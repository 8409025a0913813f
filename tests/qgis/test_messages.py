"""Messages in the bar: one at a time, failures stay, details on request, nothing modal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from qgis.core import Qgis, QgsApplication
from qgis.gui import QgsMessageViewer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QApplication, QPushButton
from rest_qgis.gui.messages import SECONDS_SHOWN, Messages
from tests.qgis.stage import flush_events


@pytest.fixture
def shown(qgis_iface: Any) -> Iterator[Messages]:
    qgis_iface.messageBar().clearWidgets()
    messages = Messages(qgis_iface)
    yield messages
    messages.close()
    assert _items(qgis_iface) == []


def test_news_take_the_place_of_older_news(shown: Messages, qgis_iface: Any) -> None:
    shown.info("first")
    shown.warning("second")
    Messages(qgis_iface).success("third")
    assert [item.text() for item in _items(qgis_iface)] == ["third"]


def test_a_failure_stays_until_the_next_one(shown: Messages, qgis_iface: Any) -> None:
    shown.error("E_FIRST", "No.")
    shown.success("other news")
    assert {item.text() for item in _items(qgis_iface)} == {"No. (E_FIRST)", "other news"}
    shown.error("E_SECOND", "No again.")
    assert {item.text() for item in _items(qgis_iface)} == {"No again. (E_SECOND)", "other news"}


def test_only_good_news_go_by_themselves(shown: Messages, qgis_iface: Any) -> None:
    for tell, seconds in (
        (shown.info, SECONDS_SHOWN),
        (shown.success, SECONDS_SHOWN),
        (shown.warning, 0),
        (lambda text: shown.error("E_X", text), 0),
    ):
        tell("text")
        assert _items(qgis_iface)[0].duration() == seconds


def test_others_messages_are_left_alone(shown: Messages, qgis_iface: Any) -> None:
    bar = qgis_iface.messageBar()
    other = bar.createMessage("somebody else")
    bar.pushItem(other)
    shown.info("ours")
    shown.info("ours again")
    shown.close()
    assert _items(qgis_iface) == [other]
    bar.clearWidgets()


def test_details_open_beside_qgis_and_wait_for_nobody(shown: Messages, qgis_iface: Any, qtbot: Any) -> None:
    shown.error("E_X", "It failed.", "scene.tif")
    (item,) = _items(qgis_iface)
    button = item.findChild(QPushButton, "RestMessageDetails")
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    (viewer,) = (window for window in QApplication.topLevelWidgets() if _is_open_viewer(window))
    try:
        assert not viewer.isModal()
        text = viewer.findChild(object, "txtMessage").toPlainText()
        for expected in ("It failed.", "E_X", "scene.tif", "log"):
            assert expected in text
    finally:
        viewer.close()
        flush_events()


def test_no_details_no_button(shown: Messages, qgis_iface: Any) -> None:
    shown.info("that is all")
    (item,) = _items(qgis_iface)
    assert item.findChild(QPushButton, "RestMessageDetails") is None


def test_all_is_logged_under_one_tag(shown: Messages, qtbot: Any) -> None:
    logged: list[tuple[str, str, Any]] = []
    log = QgsApplication.messageLog()
    log.messageReceived.connect(lambda text, tag, level: logged.append((text, tag, level)))
    shown.info("a", "more of a")
    shown.error("E_X", "b")
    flush_events()
    assert ("a\nmore of a", "REST", Qgis.MessageLevel.Info) in logged
    failures = [text for text, tag, level in logged if (tag, level) == ("REST", Qgis.MessageLevel.Critical)]
    assert failures and all(text.startswith("b (E_X)") for text in failures)


def _items(interface: Any) -> list[Any]:
    return interface.messageBar().items()


def _is_open_viewer(window: Any) -> bool:
    return isinstance(window, QgsMessageViewer) and window.isVisible()
