"""Writing confidence and probabilities, and several rasters of one job together."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rest_backend.errors import InputError, ResourceError
from rest_backend.rasters import mapwriter, replacing
from rest_backend.rasters.classmap import ClassMapWriter
from rest_backend.rasters.mapwriter import MapWriter, check_space, finish_together
from rest_backend.rasters.scene import open_scene
from rest_backend.rasters.scoremap import ScoreMapWriter
from tests.rasters import makers
from tests.rasters.test_classmap import CLASSES, folder, labels

TAGS = {"REST_MODEL": "a-model"}
Window = tuple[int, int, int, int]


def scores(bands: int, height: int, width: int, seed: int = 3) -> NDArray[np.uint8]:
    """Smooth planes with a hole of nodata."""
    rows = np.linspace(0, 254, height)[None, :, None]
    noise = np.random.default_rng(seed).integers(0, 20, (bands, height, width))
    values = np.clip(rows + noise, 0, 254).astype(np.uint8)
    values[:, : height // 4, : width // 4] = 255
    return values


@pytest.fixture
def scene_path(tmp_path: Path) -> Path:
    return makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 300, 400), transform=makers.ROTATED)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


def write_scores(
    output: Path, scene_path: Path, values: NDArray[np.uint8], window: Window | None = None, step: int = 100
) -> None:
    names = [f"class {band}" for band in range(len(values))]
    with open_scene(scene_path) as scene, ScoreMapWriter(output, scene, window, names, TAGS) as writer:
        for row in range(0, values.shape[1], step):
            writer.write(row, values[:, row : row + step])
        writer.finish()


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 17])
def test_bands_are_scores_not_colours(scene_path: Path, results: Path, bands: int) -> None:
    values = scores(bands, 300, 400)
    write_scores(results / "scores.tif", scene_path, values)
    with rasterio.open(scene_path) as scene, rasterio.open(results / "scores.tif") as written:
        np.testing.assert_array_equal(written.read(), values)
        assert written.descriptions == tuple(f"class {band}" for band in range(bands))
        assert written.dtypes == ("uint8",) * bands
        assert written.nodatavals == (255,) * bands
        assert written.scales == (1 / 254,) * bands
        assert written.offsets == (0,) * bands
        assert {name.name for name in written.colorinterp} <= {"gray", "undefined"}
        assert (written.transform, written.crs) == (scene.transform, scene.crs)
        assert written.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert written.tags()["REST_MODEL"] == "a-model"
        assert written.overviews(1) == [2]
    assert sorted(folder(results)) == ["scores.qml", "scores.tif"]


def test_overviews_are_averages_of_what_is_there(scene_path: Path, results: Path) -> None:
    values = scores(2, 300, 400)
    write_scores(results / "scores.tif", scene_path, values)
    with rasterio.open(results / "scores.tif", OVERVIEW_LEVEL=0) as overview:
        found = overview.read()
    blocks = values.reshape(2, 150, 2, 200, 2).astype(float)
    blocks[blocks == 255] = np.nan
    means = np.nanmean(np.where(np.isnan(blocks).all(axis=(2, 4), keepdims=True), 255.0, blocks), axis=(2, 4))
    assert np.abs(found - means).max() <= 0.5


@pytest.mark.parametrize("step", [1, 37, 256, 300])
def test_rows_of_any_height_and_a_window(scene_path: Path, results: Path, step: int) -> None:
    values = scores(3, 270, 333)
    write_scores(results / "scores.tif", scene_path, values, window=(11, 7, 333, 270), step=step)
    with rasterio.open(results / "scores.tif") as written:
        np.testing.assert_array_equal(written.read(), values)


def test_rows_must_come_in_order_and_fit(scene_path: Path, results: Path) -> None:
    values = scores(2, 300, 400)
    with (
        open_scene(scene_path) as scene,
        ScoreMapWriter(results / "scores.tif", scene, None, ["a", "b"], TAGS) as writer,
    ):
        writer.write(0, values[:, :10])
        for row, rows in ((0, values), (10, values), (10, values[:1, :5]), (10, values[:, :5, :9])):
            with pytest.raises(ValueError, match="rows"):
                writer.write(row, rows)
        with pytest.raises(ValueError, match="uint8"):
            writer.write(10, values[:, 10:20].astype(np.int16))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="10 of 300 rows"):
            writer.finish()
    assert folder(results) == {}


def test_no_band_is_no_map(scene_path: Path, results: Path) -> None:
    with open_scene(scene_path) as scene, pytest.raises(ValueError, match="at least one band"):
        ScoreMapWriter(results / "scores.tif", scene, None, [], TAGS)


def test_what_lay_beside_an_older_raster_of_the_name_is_gone(scene_path: Path, results: Path) -> None:
    with (
        open_scene(scene_path) as scene,
        ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS) as writer,
    ):
        writer.write(0, labels(300, 400))
        writer.finish()
    assert (results / "map.tif.aux.xml").exists()
    write_scores(results / "map.tif", scene_path, scores(1, 300, 400))
    assert sorted(folder(results)) == ["map.qml", "map.tif"]
    assert b"singlebandgray" in (results / "map.qml").read_bytes()


QGIS_SCORES = """
import sys
from qgis.core import QgsApplication, QgsPointXY, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "scores")
renderer = layer.renderer()
contrast = renderer.contrastEnhancement()
block = layer.dataProvider().block(1, layer.extent(), layer.width(), layer.height())
print([renderer.type(), contrast.minimumValue(), contrast.maximumValue(), round(block.value(299, 399), 6),
       block.isNoData(0, 0), layer.bandName(2)])
"""


def test_qgis_shows_scores_between_0_and_1(tmp_path: Path, results: Path) -> None:
    python = Path(__file__).resolve().parents[2] / ".venv-qgis" / "bin" / "python"
    if not python.exists():
        pytest.skip("no QGIS environment beside this checkout (make setup)")
    scene_path = makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 300, 400))
    values = scores(2, 300, 400)
    write_scores(results / "scores.tif", scene_path, values)
    foreign = ("PYTHON", "GDAL", "PROJ")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment["QT_QPA_PLATFORM"] = "offscreen"
    done = subprocess.run(
        [str(python), "-c", QGIS_SCORES, str(results / "scores.tif")],
        capture_output=True, text=True, timeout=120, env=environment, cwd=results, check=False,
    )  # fmt: skip
    shown = next((line for line in done.stdout.splitlines() if line.startswith("[")), done.stderr)
    expected = round(int(values[0, 299, 399]) / 254, 6)
    assert shown == repr(["singlebandgray", 0.0, 1.0, expected, True, "Band 2: class 1"])


# --- several rasters of one job -----------------------------------------------------------


def write_three(results: Path, scene_path: Path, seed: int, incomplete: bool = False) -> None:
    classes, planes = labels(300, 400, seed), scores(2, 300, 400, seed)
    with open_scene(scene_path) as scene:
        writers: list[MapWriter] = []
        confidence = ScoreMapWriter(results / "confidence.tif", scene, None, ["confidence"], TAGS)
        probabilities = ScoreMapWriter(results / "probabilities.tif", scene, None, ["a", "b"], TAGS)
        output = ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS)
        with confidence, probabilities, output:
            writers += [confidence, probabilities, output]
            confidence.write(0, planes[:1])
            probabilities.write(0, planes)
            output.write(0, classes[:100] if incomplete else classes)
            finish_together(writers)


def test_rasters_of_one_job_appear_together(scene_path: Path, results: Path) -> None:
    write_three(results, scene_path, seed=1)
    names = ["confidence.qml", "confidence.tif", "map.qml", "map.tif", "map.tif.aux.xml"]
    assert sorted(folder(results)) == [*names, "probabilities.qml", "probabilities.tif"]
    before = folder(results)
    with pytest.raises(ValueError, match="100 of 300 rows"):
        write_three(results, scene_path, seed=2, incomplete=True)
    assert folder(results) == before
    write_three(results, scene_path, seed=2)
    after = folder(results)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after if name.endswith(".tif"))


@pytest.mark.parametrize(
    "failing", ["confidence.qml", "confidence.tif", "probabilities.tif", "map.qml", "map.tif"]
)
@pytest.mark.parametrize("older", ["all", "some", "none"])
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_when_one_cannot_be_put_in_place_all_are_as_before(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch, failing: str, older: str, links: bool
) -> None:
    if older != "none":
        write_three(results, scene_path, seed=1)
    if older == "some":
        for name in ("confidence.tif", "map.qml", "probabilities.qml"):
            (results / name).unlink()
    before = folder(results)
    replace = os.replace
    refusals = []

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == failing and not str(source).endswith(".old"):
            refusals.append(target)
            raise PermissionError(13, "The process cannot access the file")
        replace(source, target)

    def no_links(source: Path, target: Path) -> None:
        if not Path(source).exists():
            raise FileNotFoundError(errno.ENOENT, "no such file")
        raise OSError(errno.EPERM, "no links on this file system")

    monkeypatch.setattr(replacing.os, "replace", refuse)
    if not links:
        monkeypatch.setattr(replacing.os, "link", no_links)
    with pytest.raises(InputError) as caught:
        write_three(results, scene_path, seed=2)
    assert refusals
    assert caught.value.code == "E_OUTPUT_IN_USE"
    assert caught.value.message.startswith(f"{failing} cannot be replaced")
    assert folder(results) == before


def test_without_links_results_are_replaced_too(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        if not Path(source).exists():
            raise FileNotFoundError(errno.ENOENT, "no such file")
        raise OSError(errno.EOPNOTSUPP, "no links on this file system")

    monkeypatch.setattr(replacing.os, "link", no_links)
    write_three(results, scene_path, seed=1)
    before = folder(results)
    write_three(results, scene_path, seed=2)
    after = folder(results)
    assert after.keys() == before.keys()
    assert after["map.tif"] != before["map.tif"]


def test_a_disk_that_fills_up_at_the_last_file(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(results, scene_path, seed=1)
    before = folder(results)
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "map.tif":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(replacing.os, "replace", full)
    with pytest.raises(ResourceError) as caught:
        write_three(results, scene_path, seed=2)
    assert caught.value.code == "E_DISK"
    assert re.search(r"needs up to [\d,.]+ MB .* [\d,.]+ MB are free", caught.value.message)
    assert folder(results) == before


def test_every_temporary_file_is_named_before_it_exists(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_three(results, scene_path, seed=1)
    before = set(results.iterdir())
    seen: set[Path] = set()
    link = os.link

    def watch(source: Path, target: Path) -> None:
        link(source, target)
        seen.update(set(results.iterdir()) - before)

    monkeypatch.setattr(replacing.os, "link", watch)
    named: set[Path] = set()
    entering = MapWriter.__enter__

    def enter(writer: MapWriter) -> MapWriter:
        named.update(writer.temporary_paths)
        return entering(writer)

    monkeypatch.setattr(MapWriter, "__enter__", enter)
    write_three(results, scene_path, seed=2)
    older = {path for path in seen if path.suffix == ".old"}
    assert older and seen > older
    assert seen - older <= named
    assert not older & named  # after a kill just then they may be all there is of the older result


def test_space_is_asked_for_all_rasters_together(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_scene(scene_path) as scene:
        writers: list[MapWriter] = [
            ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS),
            ScoreMapWriter(results / "confidence.tif", scene, None, ["confidence"], TAGS),
        ]
        needed = [writer.needed_bytes for writer in writers]
        usage = shutil.disk_usage(results)._replace(free=sum(needed) - 1)
        monkeypatch.setattr(mapwriter.shutil, "disk_usage", lambda _: usage)
        check_space(writers[:1])
        check_space(writers[1:])
        with pytest.raises(ResourceError) as caught:
            check_space(writers)
    assert caught.value.code == "E_DISK"
    assert f"{sum(needed) / 1e6:,.1f} MB" in caught.value.message
    assert f"{usage.free / 1e6:,.1f} MB are free" in caught.value.message
