"""A real QGIS, a real daemon: what the tests of the plugin share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qgis.core import QgsSettings
from rest_qgis.plugin import RestPlugin
from tests.qgis.stage import (
    REPOSITORY,
    end_engine,
    flush_events,
    make_scene,
    order_for,
    until,
    unwatch_messages,
    watch_messages,
)


@pytest.fixture(scope="session")
def engine_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon's home of these tests' own; the daemon ends with them."""
    home = tmp_path_factory.mktemp("rest-home")
    home.chmod(0o700)
    kept = {name: os.environ.get(name) for name in ("REST_HOME", "REST_BACKEND")}
    os.environ["REST_HOME"] = str(home)
    if not os.environ.get("REST_BACKEND"):
        os.environ["REST_BACKEND"] = str(REPOSITORY / ".venv" / "bin" / "rest-backend")
    yield home
    end_engine(home)
    for name, value in kept.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def plugin(engine_home: Path, qgis_iface: Any, qgis_new_project: Any) -> Iterator[RestPlugin]:
    """The plugin as QGIS's desktop has it, with an empty project."""
    watch_messages(qgis_iface)
    made = RestPlugin(qgis_iface)
    made.initGui()
    yield made
    made.unload()
    flush_events()
    unwatch_messages(qgis_iface)
    QgsSettings().remove("rest_qgis/jobs")  # notes of jobs this test did not wait for


@pytest.fixture
def small_scene(tmp_path: Path) -> Path:
    """A scene of 300 x 700 pixels with a corner of no data; a second or two of work."""
    return make_scene(tmp_path / "small scene.tif", width=300, height=700)


@pytest.fixture
def long_scene(tmp_path: Path) -> Path:
    """The sample scene, some seconds of work: time to cancel it."""
    path = tmp_path / "kitsap.tif"
    shutil.copyfile(REPOSITORY / "resources" / "scenes" / "kitsap.tif", path)
    return path


@pytest.fixture
def queue_held(plugin: RestPlugin, qtbot: Any, tmp_path: Path) -> Iterator[Any]:
    """Another job before all others, so that those stay in the queue until it is cancelled."""
    scene = make_scene(tmp_path / "large.tif", width=4096, height=8192)
    job = plugin.link.segment(order_for(scene, tmp_path / "large-classes.tif", watchable=False, preview=True))
    until(qtbot, lambda: job.state == "running")
    yield job
    job.cancel()
    until(qtbot, lambda: job.ended)


@pytest.fixture(scope="session")
def plugin_folder() -> Path:
    """``build/plugin``, up to date."""
    subprocess.run([sys.executable, REPOSITORY / "tools" / "assemble_plugin.py"], check=True)
    return REPOSITORY / "build" / "plugin"
