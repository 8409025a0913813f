"""``rest:segment`` under ``qgis_process``: with a daemon of its own, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from osgeo import gdal, ogr, osr

from rest_qgis.client import Engine
from tests.qgis.stage import end_engine, make_scene, read


class Headless:
    """``qgis_process`` as a person starts it, with a home and a daemon of its own."""

    def __init__(self, folder: Path, plugin_folder: Path) -> None:
        program = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
        assert program is not None
        self.program = program
        self.rest_home = folder / "rest"
        home = folder / "home"
        (home / "run").mkdir(parents=True, mode=0o700)
        self.rest_home.mkdir(mode=0o700)
        self.environment = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "LANG": "C.UTF-8",
            "QT_QPA_PLATFORM": "offscreen",
            "QGIS_PLUGINPATH": str(plugin_folder),
            # QGIS embeds the system's Python and finds pyzmq through PATH.
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "REST_HOME": str(self.rest_home),
            "REST_BACKEND": os.environ["REST_BACKEND"],
        }
        self.call("plugins", "enable", "rest_qgis")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *arguments: str) -> str:
        ended = subprocess.run(
            [self.program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def jobs(self) -> list[dict[str, Any]]:
        """What the daemon says of its jobs."""
        answers: list[Any] = []
        answered = threading.Event()
        with Engine(home=self.rest_home) as engine:
            engine.status(lambda status, error: (answers.extend((status, error)), answered.set()))
            assert answered.wait(30), "the daemon did not answer"
        assert answers[1] is None
        return answers[0]["jobs"]


@pytest.fixture(scope="module")
def headless(
    engine_home: Path, plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Headless]:
    made = Headless(tmp_path_factory.mktemp("headless"), plugin_folder)
    yield made
    end_engine(made.rest_home)


def test_runs_under_qgis_process(headless: Headless, tmp_path: Path) -> None:
    """With no daemon running: it is started, and does not hold the caller's pipes open."""
    scene, output = make_scene(tmp_path / "scene.tif", 200, 150), tmp_path / "classes.tif"
    text = headless.call("--json", "run", "rest:segment", f"--INPUT={scene}", f"--OUTPUT={output}")
    results = json.loads(text[text.index("{") :])["results"]
    assert results["OUTPUT"] == str(output)
    assert results["JOB_ID"]
    assert read(output).shape == (150, 200)


def test_bands_area_and_confidence_under_qgis_process(headless: Headless, tmp_path: Path) -> None:
    """As the user guide has it: polygons from a file, and a list by naming the parameter again."""
    scene = make_scene(tmp_path / "scene.tif", 200, 150)
    area = tmp_path / "parcels.gpkg"
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(26910)
    source = ogr.GetDriverByName("GPKG").CreateDataSource(str(area))
    layer = source.CreateLayer("parcels", reference, ogr.wkbPolygon)
    feature = ogr.Feature(layer.GetLayerDefn())
    x, y = 523653.0 + 30 * 0.3, 5267262.0 - 20 * 0.3
    box = f"Polygon (({x} {y}, {x + 15} {y}, {x + 15} {y - 12}, {x} {y - 12}, {x} {y}))"
    feature.SetGeometry(ogr.CreateGeometryFromWkt(box))
    layer.CreateFeature(feature)
    del feature, layer, source
    outputs = {name: tmp_path / f"{name}.tif" for name in ("OUTPUT", "CONFIDENCE")}
    headless.call(
        "run",
        "rest:segment",
        f"--INPUT={scene}",
        f"--AOI={area}",
        *(f"--BANDS={number}" for number in (3, 2, 1)),
        *(f"--{name}={path}" for name, path in outputs.items()),
    )
    for path in outputs.values():
        assert read(path).shape == (40, 50)
        assert (read(path) != 255).all()
    assert gdal.Open(str(outputs["OUTPUT"])).GetMetadataItem("REST_BANDS") == "3,2,1"


def test_control_c_in_qgis_process_cancels_the_job(
    headless: Headless, long_scene: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    process = headless.start("run", "rest:segment", f"--INPUT={long_scene}", f"--OUTPUT={folder}/o.tif")
    told: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        told.append(line)
        if line.startswith("sweep"):
            process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert "E_CANCELLED" in "".join(told)
    (job,) = [job for job in headless.jobs() if job["scene"] == str(long_scene)]
    assert job["state"] == "cancelled"
    assert list(folder.iterdir()) == []
