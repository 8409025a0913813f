"""Jobs are found again: after the engine died or was stopped, and by another QGIS than the one that asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qgis.core import Qgis, QgsProject, QgsSettings
from qgis.PyQt.QtCore import QSettings
from rest_qgis.gui import records
from rest_qgis.install import folder
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import (
    REPOSITORY,
    messages,
    order_for,
    read,
    rest_layers,
    until,
)


@pytest.fixture(autouse=True)
def profile(tmp_path: Path) -> Iterator[Path]:
    """A profile of each test's own."""
    usual = Path(QgsSettings().fileName()).parents[1]
    own = tmp_path / "profile"
    for path in (own, usual):
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(path))
        if path == own:
            assert own in Path(QgsSettings().fileName()).parents
            yield own


@pytest.fixture
def reference(plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path) -> np.ndarray:
    """What a job nobody disturbs makes of the scene."""
    order = order_for(small_scene, tmp_path / "reference.tif", keep_layer=False)
    _run(plugin, qtbot, order)
    return read(order.output)


@pytest.mark.parametrize(
    ("end", "saved"),
    [("killed", True), ("killed", False), ("closed", True)],
    ids=["killed, project", "killed, profile", "closed, project"],
)
def test_a_new_qgis_gets_the_whole_result(
    plugin: RestPlugin,
    qgis_iface: Any,
    qtbot: Any,
    small_scene: Path,
    tmp_path: Path,
    reference: np.ndarray,
    queue_held: Any,
    end: str,
    saved: bool,
) -> None:
    project = tmp_path / "project.qgs"
    output = tmp_path / "classes.tif"
    _leave(end, small_scene, output, project if saved else None)
    if saved:
        assert QgsProject.instance().read(str(project))
        assert all(layer.isValid() for layer in QgsProject.instance().mapLayers().values())
        assert not QgsProject.instance().isDirty()
    else:
        QgsSettings().sync()
        plugin.coming_back.come_back(unsaved=True)
    until(qtbot, lambda: [layer.source()[-4:] for layer in rest_layers()] == [".vrt"])
    (layer,) = rest_layers()
    assert not queue_held.ended
    queue_held.cancel()
    until(qtbot, lambda: layer.source() == str(output))
    assert np.array_equal(read(output), reference)
    until(qtbot, lambda: not _noted())
    assert [text for text in messages(qgis_iface, Qgis.MessageLevel.Success) if "is done" in text]


def test_what_is_done_meanwhile_is_loaded_once(
    plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    project, output = tmp_path / "project.qgs", tmp_path / "classes.tif"
    key = _leave("killed", small_scene, output, project)
    until(qtbot, lambda: output.exists())
    assert QgsProject.instance().read(str(project))
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])
    until(qtbot, lambda: not _noted())
    assert QgsProject.instance().write()
    assert key not in project.read_text(encoding="utf-8")
    # An older copy of the project, in which the job is still open and its result is shown.
    records.keep_in_project(order_for(small_scene, output, key=key))
    assert QgsProject.instance().write()
    assert QgsProject.instance().read(str(project))
    until(qtbot, lambda: not _noted())
    assert [layer.source() for layer in rest_layers()] == [str(output)]


def test_jobs_without_a_result_leave_one_message(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        records.keep_in_project(order_for(small_scene, tmp_path / f"{name}.tif", title=name))
    project = tmp_path / "project.qgs"
    assert QgsProject.instance().write(str(project))
    assert QgsProject.instance().read(str(project))
    until(qtbot, lambda: not _noted())
    shown = [item.text() for item in qgis_iface.messageBar().items()]
    assert len(shown) == 1
    assert "“a”" in shown[0]
    assert "E_UNKNOWN_JOB" in shown[0]
    assert "1 more" in shown[0]
    assert rest_layers() == []


def test_a_stopped_engine_shows_its_queue_again_when_it_runs(
    plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    output = tmp_path / "classes.tif"
    plugin.link.segment(order_for(small_scene, output))
    until(qtbot, lambda: len(rest_layers()) == 1)
    plugin.toolbar.stop_action.trigger()
    until(qtbot, lambda: plugin.link.state == "stopped" and not rest_layers())
    assert len(_noted()) == 1
    plugin.toolbar.start_action.trigger()
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])
    until(qtbot, lambda: not _noted())


def test_the_jobs_list_survives_a_killed_engine(
    plugin: RestPlugin, qgis_iface: Any, qtbot: Any, small_scene: Path, tmp_path: Path, reference: np.ndarray
) -> None:
    output = tmp_path / "classes.tif"
    job = plugin.link.segment(order_for(small_scene, output, title="to be killed"))
    until(qtbot, lambda: job.state == "running")
    plugin.toolbar.jobs_action.trigger()
    panel = plugin.jobs_panel
    until(qtbot, lambda: _row(panel, "to be killed")[1] in ("Running", "Waiting"))
    connection = Path(os.environ["REST_HOME"]) / "connection.json"
    os.kill(json.loads(connection.read_text(encoding="utf-8"))["pid"], signal.SIGKILL)
    until(qtbot, lambda: _row(panel, "to be killed")[1] == "Done")
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])
    assert np.array_equal(read(output), reference)
    assert _row(panel, "reference")[1] == "Done"  # from before the kill


def test_a_job_comes_back_to_its_own_project_only(
    plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path, queue_held: Any
) -> None:
    project, output = tmp_path / "project.qgs", tmp_path / "classes.tif"
    assert QgsProject.instance().write(str(project))
    job = plugin.link.segment(order_for(small_scene, output))
    until(qtbot, lambda: len(rest_layers()) == 1)
    assert QgsProject.instance().write()
    QgsProject.instance().clear()
    queue_held.cancel()
    until(qtbot, lambda: job.ended)
    qtbot.wait(50)
    assert rest_layers() == []
    assert QgsProject.instance().read(str(project))
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])


def test_a_running_job_is_shown_again_with_its_project(
    plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path, queue_held: Any
) -> None:
    project, output = tmp_path / "project.qgs", tmp_path / "classes.tif"
    plugin.link.segment(order_for(small_scene, output))
    until(qtbot, lambda: len(rest_layers()) == 1)
    assert QgsProject.instance().write(str(project))
    QgsProject.instance().clear()
    assert QgsProject.instance().read(str(project))
    until(qtbot, lambda: [layer.source()[-4:] for layer in rest_layers()] == [".vrt"])
    queue_held.cancel()
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])
    assert plugin.live_layers._shown == {}


def test_a_preview_is_not_in_the_project_any_more(
    plugin: RestPlugin, qtbot: Any, small_scene: Path, tmp_path: Path
) -> None:
    project, output = tmp_path / "project.qgs", tmp_path / "preview.tif"
    _run(plugin, qtbot, order_for(small_scene, output, preview=True))
    until(qtbot, lambda: [layer.source() for layer in rest_layers()] == [str(output)])
    assert QgsProject.instance().write(str(project))
    assert str(output) not in project.read_text(encoding="utf-8")
    assert [layer.source() for layer in rest_layers()] == [str(output)]  # until QGIS is closed
    QgsProject.instance().clear()
    until(qtbot, lambda: not output.exists())
    assert QgsProject.instance().read(str(project))
    assert all(layer.isValid() for layer in QgsProject.instance().mapLayers().values())
    until(qtbot, lambda: rest_layers() == [])


def test_noting_a_job_does_not_ask_for_saving(plugin: RestPlugin, small_scene: Path, tmp_path: Path) -> None:
    project = QgsProject.instance()
    assert project.write(str(tmp_path / "project.qgs"))
    order = order_for(small_scene, tmp_path / "a.tif", window=(0, 0, 64, 64), bands=(3, 2, 1), aoi="/a.gpkg")
    records.keep_in_project(order)
    assert not project.isDirty()
    assert project.write()
    project.clear()
    assert project.read(str(tmp_path / "project.qgs"))
    (found,) = records.orders_of_project(unsaved=False)
    assert found == order


def test_previews_and_abandoned_jobs_are_not_noted(
    plugin: RestPlugin, small_scene: Path, tmp_path: Path
) -> None:
    for fields in ({"preview": True}, {"abandon_seconds": 60}):
        assert plugin.coming_back.listen(order_for(small_scene, tmp_path / "a.tif", **fields)) is None
    assert _noted() == set()


def test_a_refused_job_is_not_noted_any_more(plugin: RestPlugin, qtbot: Any, small_scene: Path) -> None:
    with qtbot.waitSignal(plugin.link.job_failed) as failed:
        assert plugin.link.segment(order_for(small_scene, Path("not absolute.tif"))) is None
    assert failed.args[1] == "E_REQUEST"
    assert _noted() == set()


def test_the_newest_are_kept(plugin: RestPlugin, small_scene: Path, tmp_path: Path) -> None:
    orders = [order_for(small_scene, tmp_path / "a.tif") for _ in range(records.MOST_RECORDS + 5)]
    for order in orders:
        records.keep_in_profile(order, "")
        records.keep_in_project(order)
    newest = {order.key for order in orders[5:]}
    assert {order.key for order in records.orders_of_project(unsaved=False)} == newest
    assert _noted() == newest


def test_temporary_results_outlive_qgis_for_as_long_as_their_jobs_are_known(
    plugin: RestPlugin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REST_HOME", str(tmp_path / "home"))
    folder.make_results_folder()
    old, new = (Path(plugin.dock.run_panel.form.output_box.paths(stem)[0]) for stem in ("old", "new"))
    assert old.parent == new.parent == tmp_path / "home" / "results"
    for path in (old, new):
        path.write_text("a result")
    os.utime(old, (0, time.time() - folder.KEEP_SECONDS - 60))
    folder.tidy_results()
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    "entry",
    [
        "{",
        "[" * 100_000,
        "[1, null, {}]",
        '[{"key": "../../etc"}]',
        '[{"key": "a", "scene": 1}]',
        " " * 3_000_000,
    ],
    ids=["cut off", "deep", "no records", "bad key", "wrong kind", "huge"],
)
def test_a_project_that_makes_no_sense_is_harmless(plugin: RestPlugin, entry: str) -> None:
    QgsProject.instance().writeEntry("rest_qgis", "/jobs", entry)
    QgsSettings().setValue("rest_qgis/jobs/a", entry)
    assert records.orders_of_project(unsaved=True) == []
    assert plugin.link.state == "stopped"


def _leave(end: str, scene: Path, output: Path, project: Path | None) -> str:
    """Have another QGIS hand in a job, and end before that does; returns the job's key."""
    before = _noted()
    profile = Path(QgsSettings().fileName()).parents[1]
    files = [str(path or "") for path in (scene, output, project)]
    command = [sys.executable, "-m", "tests.qgis.leaving", str(profile), end, *files]
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    ) as qgis:
        try:
            assert qgis.stdout.readline() == "left\n"
            if end == "closed":
                assert qgis.wait(60) == 0  # with the job still in the queue
        finally:
            qgis.kill()
    QgsSettings().sync()
    (key,) = _noted() - before
    return key


def _run(plugin: RestPlugin, qtbot: Any, order: Any) -> None:
    job = plugin.link.segment(order)
    until(qtbot, lambda: job.ended)
    assert job.state == "done"


def _noted() -> set[str]:
    """Keys of the jobs in the profile and in the open project."""
    settings = QgsSettings()
    settings.beginGroup("rest_qgis/jobs")
    return {*settings.childKeys(), *(order.key for order in records.orders_of_project(unsaved=True))}


def _row(panel: Any, title: str) -> list[str]:
    """The cells of the row whose first one contains ``title``; empty cells where there is none."""
    model = panel.table.model()
    for row in range(model.rowCount()):
        cells = [model.index(row, column).data() for column in range(model.columnCount())]
        if title in cells[0]:
            return cells
    return [""] * model.columnCount()
