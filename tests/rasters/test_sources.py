"""A scene whose files change while it is read is noticed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rest_backend.errors import InputError
from rest_backend.rasters.resampled import resampled
from rest_backend.rasters.scene import Scene, open_scene
from tests.rasters.makers import ramp, write_raster


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", ramp(1, 400, 400), tiled=True, blockxsize=64, blockysize=64)


def changed(scene: Scene) -> str:
    with pytest.raises(InputError) as failed:
        scene.check_unchanged()
    assert failed.value.code == "E_SCENE_CHANGED"
    return failed.value.message


def test_nothing_happened(path: Path) -> None:
    with open_scene(path) as scene:
        scene.check_unchanged()
        scene.read(0, 100)
        resampled(scene, 100, 100).check_unchanged()
        scene.check_unchanged()


def test_a_deleted_scene(path: Path) -> None:
    with open_scene(path) as scene:
        path.unlink()
        assert "scene.tif was deleted or moved" in changed(scene)
        with pytest.raises(InputError):
            resampled(scene, 100, 100).check_unchanged()


def test_a_replaced_scene_of_the_same_size_and_time(path: Path) -> None:
    status = path.stat()
    with open_scene(path) as scene:
        shutil.copy(path, path.with_name("other.tif"))
        os.utime(path.with_name("other.tif"), ns=(status.st_atime_ns, status.st_mtime_ns))
        path.with_name("other.tif").replace(path)
        assert "scene.tif was changed" in changed(scene)


def test_a_scene_written_to(path: Path) -> None:
    status = path.stat()
    with open_scene(path) as scene:
        with path.open("rb+") as stream:
            stream.seek(5000)
            stream.write(b"x")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
        changed(scene)


def test_a_scene_that_grew(path: Path) -> None:
    status = path.stat()
    with open_scene(path) as scene:
        with path.open("ab") as stream:
            stream.write(b"x")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        changed(scene)


def test_a_source_of_a_virtual_raster(path: Path, tmp_path: Path) -> None:
    virtual = tmp_path / "virtual.vrt"
    virtual.write_text(
        '<VRTDataset rasterXSize="400" rasterYSize="400"><VRTRasterBand dataType="Byte" band="1">'
        "<SimpleSource>"
        '<SourceFilename relativeToVRT="1">scene.tif</SourceFilename><SourceBand>1</SourceBand>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with open_scene(virtual) as scene:
        scene.check_unchanged()
        path.unlink()
        assert "scene.tif was deleted" in changed(scene)


def test_a_mask_beside_the_scene(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "scene.tif", ramp(1, 40, 40), mask=np.ones((40, 40), dtype=bool), mask_inside=False
    )
    with open_scene(path) as scene:
        path.with_name("scene.tif.msk").unlink()
        assert "scene.tif.msk" in changed(scene)


def test_what_qgis_writes_beside_a_scene_is_no_change(path: Path) -> None:
    beside = [path.with_name(path.name + ".aux.xml"), path.with_name(path.name + ".ovr")]
    beside[0].write_text("<PAMDataset></PAMDataset>")
    with open_scene(path) as scene:
        beside[0].write_text("<PAMDataset><Metadata></Metadata></PAMDataset>")
        beside[1].write_bytes(b"overviews")
        scene.check_unchanged()
        for file in beside:
            file.unlink()
        scene.check_unchanged()


def test_a_scene_cut_short_while_it_is_read_is_told_as_changed(path: Path) -> None:
    with open_scene(path) as scene:
        os.truncate(path, 20_000)
        with pytest.raises(InputError) as failed:
            scene.read(300, 100)
    assert failed.value.code == "E_SCENE_CHANGED"
