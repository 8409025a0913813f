"""Writing class maps: content, georeferencing, legend, and nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from rasters import makers
from rest_backend.errors import InputError, ResourceError
from rest_backend.rasters import ClassMapWriter, mapwriter, open_scene


@dataclass(frozen=True)
class Entry:
    id: int
    name: str
    color: str


CLASSES = (
    Entry(0, "background", "#202020"),
    Entry(1, "Gebäude & <Dach>", "#E41A1C"),
    Entry(2, "water", "#377eb8"),
)
TAGS = {"REST_MODEL": "a-model", "REST_BANDS": "1,2,3", "REST_NOTE": "ü < & \" '"}
Window = tuple[int, int, int, int]


def labels(height: int, width: int, seed: int = 2) -> NDArray[np.uint8]:
    """Patches of the three classes with a hole of nodata."""
    rows, columns = -(-height // 8), -(-width // 8)
    patches = np.random.default_rng(seed).integers(0, 3, (rows, columns)).astype(np.uint8)
    values = patches.repeat(8, axis=0).repeat(8, axis=1)[:height, :width].copy()
    values[: height // 4 // 8 * 8, : width // 4 // 8 * 8] = 255
    return values


def write_map(
    output: Path, scene_path: Path, values: NDArray[np.uint8], window: Window | None = None, step: int = 100
) -> None:
    with open_scene(scene_path) as scene, ClassMapWriter(output, scene, window, CLASSES, TAGS) as writer:
        for row in range(0, len(values), step):
            writer.write(row, values[row : row + step])
        writer.finish()


def folder(path: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.iterdir() if entry.is_file()}


@pytest.fixture
def scene_path(tmp_path: Path) -> Path:
    return makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 700, 900), transform=makers.ROTATED)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


# --- what is written ----------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 32, 511, 512, 700])
def test_rows_of_any_height_become_one_map(scene_path: Path, results: Path, step: int) -> None:
    values = labels(700, 900)
    write_map(results / "map.tif", scene_path, values, step=step)
    with rasterio.open(results / "map.tif") as written:
        np.testing.assert_array_equal(written.read(1), values)
        assert written.dtypes == ("uint8",) and written.nodata == 255
    assert sorted(folder(results)) == ["map.qml", "map.tif", "map.tif.aux.xml"]


def test_the_map_is_a_cog_with_overviews_by_mode(scene_path: Path, results: Path) -> None:
    values = labels(700, 900)
    write_map(results / "map.tif", scene_path, values)
    with rasterio.open(results / "map.tif") as written:
        structure = written.tags(ns="IMAGE_STRUCTURE")
        assert structure["LAYOUT"] == "COG" and structure["COMPRESSION"] == "DEFLATE"
        assert written.block_shapes == [(512, 512)] and written.overviews(1) == [2]
        tags = written.tags()
        assert {name: tags[name] for name in TAGS} == TAGS
    with rasterio.open(results / "map.tif", OVERVIEW_LEVEL=0) as overview:
        # patches are 8 pixels wide, so every 2 x 2 pixels are of one class, which mode keeps
        np.testing.assert_array_equal(overview.read(1), values[::2, ::2])
    with (results / "map.tif").open("rb") as stream:
        assert b"LAYOUT=IFDS_BEFORE_DATA" in stream.read(400)  # GDAL's own sign of a COG


@pytest.mark.parametrize(
    "transform", [makers.NORTH_UP, makers.NON_SQUARE, makers.ROTATED, makers.SOUTH_UP], ids=str
)
def test_georeferencing_bit_for_bit(tmp_path: Path, results: Path, transform: rasterio.Affine) -> None:
    scene_path = makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 40, 50), transform=transform)
    write_map(results / "whole.tif", scene_path, labels(40, 50))
    write_map(results / "part.tif", scene_path, labels(20, 30), window=(7, 11, 30, 20))
    with rasterio.open(scene_path) as scene, rasterio.open(results / "whole.tif") as whole:
        assert whole.transform == scene.transform == transform
        assert whole.crs == scene.crs
    with rasterio.open(results / "part.tif") as part:
        assert (part.width, part.height) == (30, 20)
        assert part.transform[:2] == transform[:2] and part.transform[3:5] == transform[3:5]
        for column, row in ((0, 0), (30, 20)):
            np.testing.assert_allclose(
                place(part.transform, column, row), place(transform, column + 7, row + 11), rtol=0, atol=1e-8
            )


def place(transform: rasterio.Affine, column: int, row: int) -> tuple[float, float]:
    a, b, c, d, e, f = transform[:6]
    return a * column + b * row + c, d * column + e * row + f


def test_no_georeferencing_in_none_out(tmp_path: Path, results: Path) -> None:
    scene_path = makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 40, 50), transform=None, crs=None)
    write_map(results / "map.tif", scene_path, labels(40, 50))
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(results / "map.tif") as written:
        assert written.crs is None and written.transform == rasterio.Affine.identity()


def test_a_crs_without_a_transform_and_the_other_way_round(tmp_path: Path, results: Path) -> None:
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    for name, transform, crs in (("a", None, "EPSG:32633"), ("b", makers.NON_SQUARE, None)):
        scene_path = makers.write_raster(
            tmp_path / f"{name}.tif", makers.ramp(1, 9, 9), transform=transform, crs=crs
        )
        write_map(results / f"{name}.tif", scene_path, labels(9, 9))
        with rasterio.open(results / f"{name}.tif") as written:
            assert (written.crs and written.crs.to_string()) == crs
            assert written.transform == (transform or rasterio.Affine.identity())


def test_control_points_travel_and_shift(tmp_path: Path, results: Path) -> None:
    scene_path = makers.write_raster(
        tmp_path / "scene.tif", makers.ramp(1, 30, 40), gcps=makers.control_points()
    )
    write_map(results / "whole.tif", scene_path, labels(30, 40))
    write_map(results / "part.tif", scene_path, labels(10, 20), window=(5, 3, 20, 10))
    for name, column, row in (("whole.tif", 0, 0), ("part.tif", 5, 3)):
        with rasterio.open(results / name) as written:
            points, crs = written.gcps
        assert crs.to_epsg() == 26910
        assert [(p.row + row, p.col + column, p.x, p.y) for p in points] == [
            (p.row, p.col, p.x, p.y) for p in makers.control_points()
        ]


def test_rational_polynomials_travel_and_shift(tmp_path: Path, results: Path) -> None:
    scene_path = makers.write_raster(tmp_path / "scene.tif", makers.ramp(1, 30, 40), transform=None, crs=None)
    rpcs = rasterio.rpc.RPC(
        height_off=10.0, height_scale=500.0, lat_off=1.5, lat_scale=0.1, long_off=2.5, long_scale=0.1,
        line_off=15.0, line_scale=15.0, samp_off=20.0, samp_scale=20.0, line_num_coeff=[0.5] * 20,
        line_den_coeff=[1.0] + [0.0] * 19, samp_num_coeff=[0.25] * 20, samp_den_coeff=[1.0] + [0.0] * 19,
    )  # fmt: skip
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    with rasterio.open(scene_path, "r+") as dataset:
        dataset.rpcs = rpcs
    write_map(results / "part.tif", scene_path, labels(10, 20), window=(5, 3, 20, 10))
    with rasterio.open(results / "part.tif") as written:
        assert (written.rpcs.line_off, written.rpcs.samp_off) == (12.0, 15.0)
        assert written.rpcs.line_num_coeff == [0.5] * 20


def test_one_pixel_and_nothing_but_nodata(tmp_path: Path, results: Path) -> None:
    scene_path = makers.write_raster(tmp_path / "scene.tif", np.ones((1, 1, 1), dtype=np.uint8))
    write_map(results / "map.tif", scene_path, np.full((1, 1), 255, dtype=np.uint8))
    with rasterio.open(results / "map.tif") as written:
        assert written.read(1).tolist() == [[255]] and written.read_masks(1).tolist() == [[0]]


def test_real_rotated_scene(shared_data: Path, results: Path) -> None:
    scene_path = shared_data / "multispectral" / "rotated_geotransform_20x20.tif"
    write_map(results / "map.tif", scene_path, labels(20, 20))
    with rasterio.open(scene_path) as scene, rasterio.open(results / "map.tif") as written:
        assert written.transform == scene.transform and written.crs == scene.crs


# --- legend ---------------------------------------------------------------------------


def test_the_style_lists_exactly_the_classes(scene_path: Path, results: Path) -> None:
    write_map(results / "map.tif", scene_path, labels(700, 900))
    style = ElementTree.parse(results / "map.qml").getroot()
    renderer = style.find("pipe/rasterrenderer")
    assert renderer is not None and renderer.get("type") == "paletted"
    entries = [(e.get("value"), e.get("label"), e.get("color")) for e in renderer.iter("paletteEntry")]
    assert entries == [(str(c.id), c.name, c.color.lower()) for c in CLASSES]
    side = ElementTree.parse(results / "map.tif.aux.xml").getroot()
    assert [e.text for e in side.iter("Category")] == [c.name for c in CLASSES]
    with rasterio.open(results / "map.tif") as written:  # GDAL takes the side file's short table
        assert written.colormap(1) == {0: (32, 32, 32, 255), 1: (228, 26, 28, 255), 2: (55, 126, 184, 255)}


def test_ids_with_gaps_and_names_xml_cannot_hold(scene_path: Path, results: Path) -> None:
    classes = [Entry(7, "seven\x07", "#010203"), Entry(2, "two", "#040506")]
    with (
        open_scene(scene_path) as scene,
        ClassMapWriter(results / "m.tif", scene, None, classes, {}) as writer,
    ):
        writer.write(0, np.full((700, 900), 7, dtype=np.uint8))
        writer.finish()
    entries = ElementTree.parse(results / "m.qml").getroot().iter("paletteEntry")
    assert [(e.get("value"), e.get("label")) for e in entries] == [("7", "seven "), ("2", "two")]
    side = ElementTree.parse(results / "m.tif.aux.xml").getroot()
    assert [e.text or "" for e in side.iter("Category")] == ["", "", "two", "", "", "", "", "seven "]


QGIS_LEGEND = """
import sys
from qgis.core import QgsApplication, QgsRasterLayer
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "map")
renderer = layer.renderer()
entries = [(entry.value, entry.label, entry.color.name()) for entry in renderer.classes()]
print(repr([renderer.type()] + entries))
"""


def test_qgis_shows_exactly_the_classes_with_and_without_the_style(scene_path: Path, results: Path) -> None:
    python = Path(__file__).resolve().parents[2] / ".venv-qgis" / "bin" / "python"
    if not python.exists():
        pytest.skip("no QGIS environment beside this checkout (make setup)")
    write_map(results / "map.tif", scene_path, labels(700, 900))
    expected = repr(["paletted"] + [(float(c.id), c.name, c.color.lower()) for c in CLASSES])
    foreign = ("PYTHON", "GDAL", "PROJ")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    environment["QT_QPA_PLATFORM"] = "offscreen"
    for _ in range(2):
        done = subprocess.run(
            [str(python), "-c", QGIS_LEGEND, str(results / "map.tif")],
            capture_output=True, text=True, timeout=120, env=environment, cwd=results, check=False,
        )  # fmt: skip
        found = [line for line in done.stdout.splitlines() if line.startswith("[")]
        # QGIS 3.22 reports whole numbers as 0.0 or 0, depending on its version
        assert [re.sub(r"\.0,", ",", line) for line in found] == [re.sub(r"\.0,", ",", expected)], done.stderr
        (results / "map.qml").unlink(missing_ok=True)  # a copy that lost its style


# --- nothing half-written -----------------------------------------------------------


def test_leaving_without_finish_leaves_nothing(scene_path: Path, results: Path) -> None:
    with open_scene(scene_path) as scene:
        with ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS) as writer:
            writer.write(0, labels(600, 900))
            existing = {entry for entry in results.iterdir()}
            assert existing and existing <= set(writer.temporary_paths)
        assert folder(results) == {}
        with (
            pytest.raises(KeyError),
            ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS) as writer,
        ):
            writer.write(0, labels(600, 900))
            raise KeyError
    assert folder(results) == {}


def test_an_older_result_survives_a_failure_and_is_replaced_by_success(
    scene_path: Path, results: Path
) -> None:
    output = results / "map.tif"
    write_map(output, scene_path, labels(700, 900, seed=1))
    (results / "map.tif.ovr").write_bytes(b"of the older map")
    before = folder(results)
    with (
        open_scene(scene_path) as scene,
        pytest.raises(ValueError, match="600 of 700 rows"),
        ClassMapWriter(output, scene, None, CLASSES, TAGS) as writer,
    ):
        writer.write(0, labels(600, 900))
        writer.finish()
    assert folder(results) == before
    newer = labels(700, 900, seed=9)
    write_map(output, scene_path, newer)
    with rasterio.open(output) as written:
        np.testing.assert_array_equal(written.read(1), newer)
    assert sorted(folder(results)) == ["map.qml", "map.tif", "map.tif.aux.xml"]


def test_a_map_that_is_open_elsewhere(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Windows says when QGIS has the file open; the older map keeps its own legend."""
    output = results / "map.tif"
    write_map(output, scene_path, labels(700, 900, seed=1))
    (results / "map.qml").write_bytes(b"the user's own style")
    before = folder(results)
    replace = os.replace

    def refuse(source: Path, target: Path) -> None:
        if target == output:
            raise PermissionError(13, "The process cannot access the file")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError) as caught:
        write_map(output, scene_path, labels(700, 900))
    assert caught.value.code == "E_OUTPUT_IN_USE" and "open in another program" in caught.value.message
    assert folder(results) == before


def test_rows_must_come_in_order_and_fit(scene_path: Path, results: Path) -> None:
    values = labels(700, 900)
    with (
        open_scene(scene_path) as scene,
        ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS) as writer,
    ):
        writer.write(0, values[:10])
        for row, rows in ((0, values[:10]), (20, values[:10]), (10, values[:, :800]), (10, values)):
            with pytest.raises(ValueError, match="rows"):
                writer.write(row, rows)
        with pytest.raises(ValueError, match="uint8"):
            writer.write(10, values[10:20].astype(np.int16))  # type: ignore[arg-type]
        writer.write(10, np.asfortranarray(values[10:]))
        writer.finish()
    with rasterio.open(results / "map.tif") as written:
        np.testing.assert_array_equal(written.read(1), values)


# --- refused before any work ----------------------------------------------------------


def refusal(output: Path, scene_path: Path, window: Window | None = None) -> InputError:
    with (
        open_scene(scene_path) as scene,
        pytest.raises(InputError) as caught,
        ClassMapWriter(output, scene, window, CLASSES, TAGS),
    ):
        pass
    assert caught.value.exit_code == 2 and caught.value.message.endswith(".")
    return caught.value


def test_folders_that_do_not_exist_or_cannot_be_written(scene_path: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none" / "map.tif", scene_path).code == "E_OUTPUT_FOLDER"
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / "file" / "map.tif", scene_path).code == "E_OUTPUT_FOLDER"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder not even root can write to")
def test_a_folder_without_permission(scene_path: Path) -> None:
    assert refusal(Path("/sys/kernel/map.tif"), scene_path).code == "E_OUTPUT_FOLDER"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that says it cannot be written")
def test_a_read_only_folder_is_refused_before_anything_is_made(scene_path: Path) -> None:
    with open_scene(scene_path) as scene, pytest.raises(InputError) as caught:
        ClassMapWriter("/proc/self/map.tif", scene, None, CLASSES, TAGS)
    assert caught.value.code == "E_OUTPUT_FOLDER"


def test_names_that_cannot_be(scene_path: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    assert refusal(tmp_path / "folder.tif", scene_path).code == "E_OUTPUT_NAME"
    (tmp_path / "style.qml").mkdir()
    assert refusal(tmp_path / "style.tif", scene_path).code == "E_OUTPUT_NAME"
    assert refusal(tmp_path / "map.png", scene_path).code == "E_OUTPUT_NAME"
    assert refusal(tmp_path / "map", scene_path).code == "E_OUTPUT_NAME"
    assert refusal(tmp_path / ("m" * 246 + ".tif"), scene_path).code == "E_OUTPUT_NAME"  # with .aux.xml: 258


def test_the_scene_and_its_style_are_never_replaced(scene_path: Path, tmp_path: Path) -> None:
    before = scene_path.read_bytes()
    assert refusal(scene_path, scene_path).code == "E_OUTPUT_IS_SCENE"
    assert refusal(tmp_path / "scene.tiff", scene_path).code == "E_OUTPUT_IS_SCENE"
    (tmp_path / "link.tif").hardlink_to(scene_path)
    assert refusal(tmp_path / "link.tif", scene_path).code == "E_OUTPUT_IS_SCENE"
    assert scene_path.read_bytes() == before


@pytest.mark.parametrize("window", [(0, 0, 901, 700), (-1, 0, 10, 10), (0, 0, 0, 5), (899, 699, 2, 1)])
def test_windows_that_leave_the_scene(scene_path: Path, results: Path, window: Window) -> None:
    assert refusal(results / "map.tif", scene_path, window).code == "E_WINDOW"


@pytest.mark.parametrize(
    "classes",
    [
        [],
        [Entry(255, "nodata", "#000000")],
        [Entry(1, "a", "#000000"), Entry(1, "b", "#000000")],
        [Entry(1, "a", "red")],
    ],
)
def test_classes_that_make_no_map(scene_path: Path, results: Path, classes: list[Entry]) -> None:
    with open_scene(scene_path) as scene, pytest.raises(ValueError, match="class"):
        ClassMapWriter(results / "map.tif", scene, None, classes, {})


# --- disks ------------------------------------------------------------------------------


def test_too_little_space_is_said_first(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(results)._replace(free=1_500_000)
    monkeypatch.setattr(mapwriter.shutil, "disk_usage", lambda _: usage)
    with open_scene(scene_path) as scene, pytest.raises(ResourceError) as caught:
        ClassMapWriter(results / "map.tif", scene, None, CLASSES, TAGS).__enter__()
    assert caught.value.code == "E_DISK" and caught.value.exit_code == 4
    assert folder(results) == {}


FULL_DISK = """
import resource, sys
import numpy as np
from rest_backend.errors import ResourceError
from rest_backend.rasters import ClassMapWriter, open_scene
from rasters.test_classmap import CLASSES
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
values = np.random.default_rng(0).integers(0, 3, (700, 900)).astype(np.uint8)
try:
    with open_scene(sys.argv[1]) as scene, ClassMapWriter(sys.argv[2], scene, None, CLASSES, {}) as writer:
        writer.write(0, values)
        writer.finish()
except ResourceError as error:
    print(error.code, "needs up to" in error.message and "MB are free" in error.message)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on file sizes stands for a full disk")
@pytest.mark.parametrize("limit", [100, 50_000, 130_000, 800_000])
def test_a_disk_that_fills_up(scene_path: Path, results: Path, limit: int) -> None:
    """At the header, among the first rows, further on, and just before the last."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(scene_path), str(results / "map.tif"), str(limit)],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.stdout.strip() == "E_DISK True", done.stdout + done.stderr
    assert folder(results) == {}


def test_what_was_written_is_read_back(
    scene_path: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that swallows a block without an error: GDAL reads a missing block as nodata."""
    copy = mapwriter.rasterio.shutil.copy

    def damaging(source: str, target: str, **options: object) -> None:
        copy(source, target, **options)
        with rasterio.open(target, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as dataset:
            dataset.write(np.full((1, 1), 2, dtype=np.uint8), 1, window=rasterio.windows.Window(0, 0, 1, 1))

    monkeypatch.setattr(mapwriter.rasterio.shutil, "copy", damaging)
    with pytest.raises(ResourceError) as caught:
        write_map(results / "map.tif", scene_path, labels(700, 900))
    assert caught.value.code == "E_DISK"
    assert folder(results) == {}


def test_the_result_never_replaces_what_a_virtual_raster_reads(tmp_path: Path) -> None:
    source = makers.write_raster(tmp_path / "source.tif", makers.ramp(3, 20, 30))
    before = source.read_bytes()
    virtual = tmp_path / "virtual.vrt"
    virtual.write_text(
        '<VRTDataset rasterXSize="30" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">source.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    assert refusal(source, virtual).code == "E_OUTPUT_IS_SCENE"
    assert source.read_bytes() == before
