"""Guards the hang at exit: undelivered queued signals with Python objects in them."""

from __future__ import annotations

import threading
from pathlib import Path

from rest_qgis.layers.main_thread import MainThread

SOURCES = Path(__file__).resolve().parents[2] / "rest_qgis"


def test_calls_run_on_the_main_thread_in_order(qtbot):
    main, ran = MainThread(), []

    def from_another_thread():
        for number in range(5):
            main.post(lambda number=number: ran.append((number, threading.current_thread())))

    worker = threading.Thread(target=from_another_thread)
    worker.start()
    worker.join()
    assert ran == []
    qtbot.waitUntil(lambda: len(ran) == 5)
    assert ran == [(number, threading.main_thread()) for number in range(5)]


def test_what_is_closed_runs_nothing_and_keeps_nothing(qtbot):
    main, ran = MainThread(), []
    main.post(lambda: ran.append("before"))
    main.close()
    main.close()
    main.post(lambda: ran.append("after"))
    qtbot.wait(50)
    assert ran == []
    assert not main._calls


def test_no_other_signal_is_queued():
    """A queued signal that carries a Python object hangs QGIS when it is still undelivered at exit."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py")}
    users = [name for name, text in sources.items() if "QueuedConnection" in text]
    assert users == ["main_thread.py"]
