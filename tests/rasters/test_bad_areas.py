"""Areas that are refused: each with its code and a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely

from rest_backend.rasters import vectors
from tests.rasters.areas import STAR, UTM, read, refused, save, scene_file, star
from tests.rasters.makers import control_points, ramp, write_raster


def test_areas_and_scenes_that_cannot_be_placed_on_each_other(tmp_path: Path) -> None:
    without = save(tmp_path / "without.gpkg", [STAR], None)
    code, message = refused(without, scene_file(tmp_path))
    assert code == "E_AOI_CRS"
    assert "set the area's" in message
    file = save(tmp_path / "area.gpkg", [STAR])
    code, message = refused(file, scene_file(tmp_path, crs=None))
    assert code == "E_AOI_CRS"
    assert "set the scene's" in message
    declared = save(tmp_path / "area.geojson", [STAR], RFC7946="NO")
    assert refused(declared, scene_file(tmp_path, crs=None))[0] == "E_AOI_CRS"
    points = write_raster(tmp_path / "points.tif", ramp(1, 30, 40), gcps=control_points(), crs=UTM)
    code, message = refused(file, points)
    assert code == "E_AOI_CRS"
    assert "control points" in message


def test_areas_elsewhere(tmp_path: Path) -> None:
    scene = scene_file(tmp_path)
    away = save(tmp_path / "away.gpkg", [shapely.box(0, 0, 1, 1)], "EPSG:4326")
    for window in (None, (0, 0, 200, 150)):
        code, message = refused(away, scene, window)
        assert code == "E_AOI_OUTSIDE"
        assert "no pixel of the scene" in message
    beside = save(tmp_path / "beside.gpkg", [shapely.box(399_000, 5_699_000, 399_999, 5_699_500)])
    assert refused(beside, scene)[0] == "E_AOI_OUTSIDE"
    tiny = save(tmp_path / "tiny.gpkg", [shapely.box(400_001, 5_699_991, 400_004, 5_699_994)])
    assert refused(tiny, scene)[0] == "E_AOI_OUTSIDE"
    file = save(tmp_path / "area.gpkg", [STAR])
    code, message = refused(file, scene, (0, 0, 20, 20))
    assert code == "E_AOI_OUTSIDE"
    assert "chosen window" in message
    assert refused(file, scene, (0, 0, 201, 150))[0] == "E_WINDOW"


@pytest.mark.parametrize(
    "shapes",
    [[shapely.Point(401_000, 5_699_500)], [None, shapely.Polygon()], []],
    ids=["point", "none", "no"],
)
def test_files_without_polygons(tmp_path: Path, shapes: list[Any]) -> None:
    file = save(tmp_path / "area.gpkg", shapes)
    assert refused(file, scene_file(tmp_path))[0] == "E_AOI_EMPTY"


def test_an_empty_file_of_polygons_as_qgis_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "area.fgb"
    pyogrio.raw.write(
        file, np.empty(0, dtype=object), [], [], geometry_type="Polygon", crs=UTM, driver="FlatGeobuf"
    )
    assert refused(file, scene_file(tmp_path))[0] == "E_AOI_EMPTY"


def test_polygons_without_a_surface(tmp_path: Path) -> None:
    line = shapely.Polygon([(400_100, 5_699_000), (400_900, 5_699_000), (400_100, 5_699_000)])
    file = save(tmp_path / "area.gpkg", [line])
    assert refused(file, scene_file(tmp_path))[0] == "E_AOI_EMPTY"


def test_a_table_without_geometry(tmp_path: Path) -> None:
    (tmp_path / "area.csv").write_text("name,value\na,1\n")
    assert refused(tmp_path / "area.csv", scene_file(tmp_path))[0] == "E_AOI_EMPTY"


def test_files_that_are_not_there_or_not_readable(tmp_path: Path) -> None:
    scene = scene_file(tmp_path)
    assert refused(tmp_path / "none.gpkg", scene)[0] == "E_AOI_MISSING"
    assert refused("a\0b.gpkg", scene)[0] == "E_AOI_MISSING"
    assert refused(tmp_path, scene)[0] == "E_AOI_UNREADABLE"
    for address in ("https://example.org/a.geojson", "/vsicurl/https://example.org/a.geojson"):
        assert refused(address, scene)[0] == "E_AOI_UNREADABLE"
    (tmp_path / "text.gpkg").write_text("no vectors")
    code, message = refused(tmp_path / "text.gpkg", scene)
    assert code == "E_AOI_UNREADABLE"
    assert "<DRIVER>" not in message  # the library's advice to programmers
    nowhere = save(tmp_path / "nowhere.gpkg", [shapely.box(-1e200, -1e200, 1e200, 1e200)])
    assert refused(nowhere, scene)[0] == "E_AOI_UNREADABLE"
    (tmp_path / "empty.geojson").write_text("")
    assert refused(tmp_path / "empty.geojson", scene)[0] == "E_AOI_UNREADABLE"
    (tmp_path / "area.zip").write_bytes(b"PK")
    assert refused(tmp_path / "area.zip", scene)[0] == "E_AOI_UNREADABLE"
    os.mkfifo(tmp_path / "pipe.gpkg")
    assert refused(tmp_path / "pipe.gpkg", scene)[0] == "E_AOI_UNREADABLE"


def test_a_damaged_geopackage(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    assert refused(file, scene_file(tmp_path))[0] == "E_AOI_UNREADABLE"


def test_a_file_that_only_points_elsewhere(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    pointer = tmp_path / "area.geojson"
    pointer.write_text(
        "<OGRVRTDataSource><OGRVRTLayer name='area'><SrcDataSource>"
        f"{file}</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
    )
    code, message = refused(pointer, scene_file(tmp_path))
    assert code == "E_AOI_UNREADABLE"
    assert "only points" in message


def test_coordinates_that_are_no_numbers(tmp_path: Path) -> None:
    ring = [[400_100, 5_699_000], [400_900, 5_699_000], [1e999, 5_699_500], [400_100, 5_699_000]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    file = tmp_path / "area.geojson"
    file.write_text(json.dumps(feature))  # writes Infinity
    assert refused(file, scene_file(tmp_path))[0] == "E_AOI_UNREADABLE"


def test_areas_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_file(tmp_path)
    file = save(tmp_path / "area.gpkg", [star(401_000, 5_699_250, 500, points=500)] * 30)
    assert len(read(file, scene)) == 30
    monkeypatch.setattr(vectors, "MAXIMUM_VERTICES", 30 * 1001 - 1)
    assert refused(file, scene)[0] == "E_AOI_TOO_LARGE"
    monkeypatch.undo()
    monkeypatch.setattr(vectors, "MAXIMUM_FEATURES", 29)
    assert refused(file, scene)[0] == "E_AOI_TOO_LARGE"
    monkeypatch.undo()
    monkeypatch.setattr(vectors, "MAXIMUM_FILE", 1000)
    assert refused(file, scene)[0] == "E_AOI_TOO_LARGE"
