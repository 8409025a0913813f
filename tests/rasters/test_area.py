"""Areas: which pixels lie inside polygons, in any reference system, and what is refused."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform as transform_points

from rest_backend.errors import CancelledError, InputError
from rest_backend.rasters import vectors
from rest_backend.rasters.area import BAND, Area, read_area
from rest_backend.rasters.scene import Scene, open_scene
from tests.rasters.makers import ROTATED, SOUTH_UP, control_points, ramp, write_raster

DATA = Path(__file__).parents[3] / "shared" / "data"
UTM = "EPSG:32633"
SIMPLE = Affine(10.0, 0.0, 400_000.0, 0.0, -10.0, 5_700_000.0)


def save(path: Path, shapes: list[Any], crs: str | None = UTM, **options: Any) -> Path:
    kinds = {shape.geom_type + " Z" * shape.has_z for shape in shapes if shape is not None}
    geometry = np.empty(len(shapes), dtype=object)
    geometry[:] = [None if shape is None else shapely.to_wkb(shape) for shape in shapes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "no CRS was given"
        pyogrio.raw.write(
            path,
            geometry,
            [],
            [],
            geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown",
            crs=crs,
            **options,
        )
    return path


def scene_file(
    folder: Path,
    width: int = 200,
    height: int = 150,
    transform: Affine | None = SIMPLE,
    crs: str | None = UTM,
) -> Path:
    return write_raster(
        folder / "scene.tif", np.ones((1, height, width), np.uint8), transform=transform, crs=crs
    )


def whole(area: Area, scene: Scene) -> NDArray[np.bool_]:
    """The mask on the whole scene."""
    result = np.zeros((scene.height, scene.width), dtype=bool)
    column, row, width, height = area.window
    result[row : row + height, column : column + width] = area.mask_rows(0, height)
    return result


def by_centres(shape: Any, scene: Scene) -> NDArray[np.bool_]:
    """The rule itself: pixels whose centre lies inside a shape in the scene's coordinates."""
    columns, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
    x, y = place(scene.transform, columns, rows)
    shapely.prepare(shape)
    return np.asarray(shapely.contains_xy(shape, x, y))


def place(transform: Affine, column: Any, row: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = transform[:6]
    return a * column + b * row + c, d * column + e * row + f


def star(x: float, y: float, radius: float, points: int = 9) -> Any:
    turns = np.linspace(0, 2 * np.pi, 2 * points, endpoint=False) + 0.1
    reach = np.where(np.arange(2 * points) % 2, 0.41, 1.0) * radius
    return shapely.Polygon(np.column_stack([x + reach * np.cos(turns), y + reach * np.sin(turns)]))


STAR = star(401_003.3, 5_699_251.7, 611.1)


def refused(path: Path | str, scene: Path, window: Any = None) -> tuple[str, str]:
    with open_scene(scene) as opened, pytest.raises(InputError) as failed:
        read_area(path, opened, window)
    assert failed.value.message.endswith((".", ")."))
    return failed.value.code, failed.value.message


@pytest.mark.parametrize("driver", ["GPKG", "GeoJSON", "ESRI Shapefile", "FlatGeobuf", "SQLite"])
def test_pixels_whose_centre_is_inside(tmp_path: Path, driver: str) -> None:
    suffix = {
        "GPKG": "gpkg",
        "GeoJSON": "geojson",
        "ESRI Shapefile": "shp",
        "FlatGeobuf": "fgb",
        "SQLite": "sqlite",
    }
    file = save(tmp_path / f"area.{suffix[driver]}", [STAR], driver=driver)
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        expected = by_centres(STAR, scene)
        assert np.array_equal(whole(area, scene), expected)
        assert area.pixels == expected.sum()
        rows, columns = np.flatnonzero(expected.any(axis=1)), np.flatnonzero(expected.any(axis=0))
        assert area.window == (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert area.notes == ()


@pytest.mark.parametrize("transform", [ROTATED, SOUTH_UP, Affine(0.5, 0.2, 9.0, -0.1, -0.7, 50.0)])
def test_any_transform(tmp_path: Path, transform: Affine) -> None:
    x, y = place(transform, 99.7, 71.2)
    shape = star(x, y, abs(transform.e) * 60)
    file = save(tmp_path / "area.gpkg", [shape])
    with open_scene(scene_file(tmp_path, transform=transform)) as scene:
        assert np.array_equal(whole(read_area(file, scene), scene), by_centres(shape, scene))


def test_holes_overlaps_and_parts(tmp_path: Path) -> None:
    outer = shapely.box(400_100, 5_699_000, 401_000, 5_699_900)
    hole = shapely.box(400_300, 5_699_200, 400_800, 5_699_700)
    island = shapely.box(400_451, 5_699_351, 400_551, 5_699_451)
    overlapping = shapely.box(400_900, 5_699_400, 401_500, 5_699_500)
    shapes = [shapely.MultiPolygon([outer.difference(hole), island]), overlapping]
    file = save(tmp_path / "area.gpkg", shapes)
    with open_scene(scene_file(tmp_path)) as scene:
        mask = whole(read_area(file, scene), scene)
        assert np.array_equal(mask, by_centres(shapely.union_all(shapes), scene))
        assert not mask[50, 40]
        assert mask[60, 50]


def test_rows_are_the_same_however_they_are_cut(tmp_path: Path) -> None:
    # More vertices than are drawn at once, over several bands, with edges right through pixel centres.
    turns = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    reach = 900 + 300 * np.sin(turns * 40)
    flower = np.column_stack([401_000 + reach * np.cos(turns), 5_697_500 + reach * np.sin(turns)])
    diamond = [(400_105, 5_697_005), (401_005, 5_697_905), (401_905, 5_697_005), (401_005, 5_696_105)]
    file = save(tmp_path / "area.gpkg", [shapely.Polygon(flower), shapely.Polygon(diamond)])
    with open_scene(scene_file(tmp_path, 200, 500)) as scene:
        area = read_area(file, scene)
        height = area.window[3]
        assert height > 2 * BAND
        once = area.mask_rows(0, height)
        for rows in (1, 7, BAND, BAND + 1):
            cut = [area.mask_rows(row, min(row + rows, height)) for row in range(0, height, rows)]
            assert np.array_equal(np.concatenate(cut), once)
        backwards = [area.mask_rows(row, row + 1) for row in reversed(range(height))]
        assert np.array_equal(np.concatenate(backwards[::-1]), once)
        inside = by_centres(shapely.Polygon(flower), scene) | by_centres(
            shapely.Polygon(diamond).buffer(-0.01), scene
        )
        assert np.array_equal(whole(area, scene) & ~_edge(diamond, scene), inside & ~_edge(diamond, scene))


def _edge(corners: list[tuple[float, float]], scene: Scene) -> NDArray[np.bool_]:
    """Pixels whose centre lies right on an edge: either answer is right."""
    band = shapely.Polygon(corners).boundary.buffer(0.01)
    return by_centres(band, scene)


def test_a_window_cuts_the_same_mask(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    with open_scene(scene_file(tmp_path)) as scene:
        mask = whole(read_area(file, scene), scene)
        for window in [(0, 0, 200, 150), (60, 30, 77, 70), (99, 74, 1, 1), (50, 0, 150, 80)]:
            column, row, width, height = window
            part = read_area(file, scene, window)
            expected = np.zeros_like(mask)
            inside = mask[row : row + height, column : column + width]
            expected[row : row + height, column : column + width] = inside
            assert np.array_equal(whole(part, scene), expected)
            assert part.pixels == expected.sum()


def test_rows_outside_the_window_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        for start, stop in [(-1, 3), (0, area.window[3] + 1), (5, 4)]:
            with pytest.raises(ValueError, match="leave the area"):
                area.mask_rows(start, stop)


@pytest.mark.parametrize(
    ("scene_crs", "transform", "area_crs"),
    [
        (UTM, SIMPLE, "EPSG:4326"),
        (UTM, Affine(100.0, 0, 300_000, 0, -100.0, 6_900_000), "EPSG:4326"),  # edges of 80 km bend by pixels
        ("EPSG:4326", Affine(0.01, 0, 13.0, 0, -0.01, 52.0), "EPSG:3857"),
        ("EPSG:4326", Affine(0.01, 0, 13.0, 0, -0.01, 52.0), UTM),
        ("EPSG:3857", Affine(50, 10, 1_500_000, 8, -50, 6_700_000), "EPSG:3035"),
        ("EPSG:3413", Affine(1000, 0, -100_000, 0, -1000, 75_000), "EPSG:4326"),  # with the North Pole inside
    ],
)
def test_areas_in_another_reference_system(
    tmp_path: Path, scene_crs: str, transform: Affine, area_crs: str
) -> None:
    with open_scene(scene_file(tmp_path, transform=transform, crs=scene_crs)) as scene:
        corners = [(20, 15), (180, 25), (150, 140), (35, 110)]
        if scene_crs == "EPSG:3413":
            shape = shapely.box(-60, 88.9, 100, 89.7)
        else:
            places = [place(transform, *corner) for corner in corners]
            x, y = transform_points(scene.crs, area_crs, *zip(*places, strict=True))
            ring = shapely.Polygon(np.column_stack([x, y]))
            shape = ring.difference(ring.centroid.buffer(math.sqrt(ring.area) / 9, quad_segs=1))
            assert len(shape.interiors) == 1
        area = read_area(save(tmp_path / "area.gpkg", [shape], area_crs), scene)
        assert area.notes == (f"The area was reprojected from {area_crs} to {scene_crs}.",)
        # The truth: each pixel's centre brought into the area's system, where its edges are straight.
        columns, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)

        def inside(dx: float, dy: float) -> NDArray[np.bool_]:
            x, y = place(transform, columns.ravel() + dx, rows.ravel() + dy)
            x, y = transform_points(scene.crs, area_crs, x, y)
            return np.asarray(shapely.contains_xy(shape, x, y)).reshape(columns.shape)

        mask = whole(area, scene)
        shifted = [inside(0.1 * np.cos(turn), 0.1 * np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 16)]
        doubtful = np.logical_or.reduce(shifted) & ~np.logical_and.reduce(shifted)
        assert np.array_equal(mask & ~doubtful, inside(0, 0) & ~doubtful)
        assert doubtful.sum() < 0.02 * mask.size
        assert mask.any()


def test_the_whole_world_is_the_whole_scene(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [shapely.box(-180, -90, 180, 90)], "EPSG:4326")
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        assert (area.window, area.pixels) == ((0, 0, 200, 150), 200 * 150)


@pytest.mark.parametrize("reach", [3e9, 3e10, 1e30])
def test_corners_beyond_what_a_drawing_can_count(tmp_path: Path, reach: float) -> None:
    cut = shapely.box(-reach, 5_699_500, reach, reach)  # one edge lies in the scene, below row 49
    file = save(tmp_path / "area.gpkg", [cut, shapely.box(401_000, 5_699_000, 401_100, 5_699_100)])
    with open_scene(scene_file(tmp_path)) as scene:
        mask = whole(read_area(file, scene), scene)
    assert mask[:50].all()
    assert mask[50:].sum() == 100


def test_a_self_crossing_polygon_is_repaired_and_told(tmp_path: Path) -> None:
    bow_tie = shapely.Polygon(
        [(400_200, 5_699_800), (401_000, 5_699_200), (401_000, 5_699_800), (400_200, 5_699_200)]
    )
    file = save(tmp_path / "area.gpkg", [bow_tie, STAR])
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        repaired = shapely.make_valid(bow_tie)
        assert repaired.area == pytest.approx(240_000)
        both = by_centres(repaired, scene) | by_centres(STAR, scene)
        assert np.array_equal(whole(area, scene), both)
        assert area.notes == ("1 polygon of the area crossed itself and was repaired.",)


def test_only_polygons_count_and_the_rest_is_told(tmp_path: Path) -> None:
    x, y = 401_000, 5_699_500
    shapes = [
        shapely.GeometryCollection([STAR, shapely.Point(x, y)]),
        shapely.LineString([(x, y), (x + 500, y + 300)]),
        shapely.Polygon(),
        None,
        shapely.GeometryCollection(),
    ]
    file = save(tmp_path / "area.gpkg", shapes)
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        assert np.array_equal(whole(area, scene), by_centres(STAR, scene))
        assert area.notes == ("2 of the area's shapes are no polygons: they are left out.",)


def test_curves_are_followed(tmp_path: Path) -> None:
    x, y, radius = 401_003.3, 5_699_251.7, 611.1
    file = tmp_path / "area.csv"
    arc = f"({x - radius} {y},{x} {y + radius},{x + radius} {y},{x} {y - radius},{x - radius} {y})"
    file.write_text(f'id,WKT\n1,"CURVEPOLYGON(CIRCULARSTRING{arc})"\n')
    with open_scene(scene_file(tmp_path, crs=None)) as scene:
        assert read_area(file, scene).pixels == pytest.approx(math.pi * (radius / 10) ** 2, rel=0.005)


def test_heights_are_left_out(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [shapely.force_3d(STAR, 55.5)])
    with open_scene(scene_file(tmp_path)) as scene:
        assert read_area(file, scene).pixels == by_centres(STAR, scene).sum()


def test_the_first_layer_is_taken_and_told(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR], layer="wanted")
    save(file, [shapely.box(400_000, 5_698_000, 402_000, 5_700_000)], layer="other", append=True)
    with open_scene(scene_file(tmp_path)) as scene:
        area = read_area(file, scene)
        assert area.pixels == by_centres(STAR, scene).sum()
        assert area.notes == ("area.gpkg holds 2 layers: the first, wanted, is the area.",)


def test_thousands_of_polygons(tmp_path: Path) -> None:
    corners = np.random.default_rng(0).random((3000, 2)) * (1900, 1400) + (400_000, 5_698_500)
    shapes = [shapely.box(x, y, x + 31, y + 23) for x, y in corners]
    file = save(tmp_path / "area.gpkg", shapes)
    with open_scene(scene_file(tmp_path)) as scene:
        union = by_centres(shapely.union_all(shapes), scene)
        assert np.array_equal(whole(read_area(file, scene), scene), union)


def test_a_scene_without_georeferencing_takes_pixel_coordinates(tmp_path: Path) -> None:
    shape = shapely.box(10, 20, 60.4, 30.6)
    with open_scene(scene_file(tmp_path, transform=None, crs=None)) as scene:
        for name, crs in [("none.gpkg", None), ("assumed.geojson", None)]:
            area = read_area(save(tmp_path / name, [shape], crs), scene)
            assert area.window == (10, 20, 50, 11)
            assert area.notes == (
                "The scene has no georeferencing: the area's coordinates are taken as pixels.",
            )
        drawn = shapely.box(10, -30.6, 60.4, -20)  # as QGIS places such a raster: rows downwards from 0
        assert read_area(save(tmp_path / "drawn.gpkg", [drawn], None), scene).window == (10, 20, 50, 11)


def test_a_scene_with_a_transform_but_no_crs(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR], None)
    with open_scene(scene_file(tmp_path, crs=None)) as scene:
        area = read_area(file, scene)
        assert area.pixels == by_centres(STAR, scene).sum()
        assert "no coordinate reference system" in area.notes[0]


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


def read(file: Path, scene: Path) -> NDArray[Any]:
    with open_scene(scene):
        return vectors.read_polygons(file).shapes


def test_batches_are_read_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save(tmp_path / "area.gpkg", [star(401_000, 5_699_250, 500)] * 25)
    for batch in (1, 5, 7, 25, 26):
        monkeypatch.setattr(vectors, "BATCH", batch)
        assert len(vectors.read_polygons(file).shapes) == 25


def test_reading_can_be_cancelled(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    with open_scene(scene_file(tmp_path)) as scene:
        for after in (0, 1):
            asked = iter([False] * after + [True] * 9)
            with pytest.raises(CancelledError):
                read_area(file, scene, cancelled=lambda asked=asked: next(asked))


def test_nothing_is_written_beside_the_area(tmp_path: Path) -> None:
    folder = tmp_path / "areas"
    folder.mkdir()
    file = save(folder / "area.gpkg", [STAR])
    before = file.read_bytes()
    with open_scene(scene_file(tmp_path)) as scene:
        read_area(file, scene)
    assert [path.name for path in folder.iterdir()] == ["area.gpkg"]
    assert file.read_bytes() == before


def test_a_geopackage_that_is_open_elsewhere(tmp_path: Path) -> None:
    file = save(tmp_path / "area.gpkg", [STAR])
    other = sqlite3.connect(file)
    other.execute("BEGIN IMMEDIATE")
    with open_scene(scene_file(tmp_path)) as scene:
        assert read_area(file, scene).pixels > 0
    other.close()


def test_the_training_polygons_of_a_real_scene() -> None:
    scene_path = DATA / "multispectral" / "landsat8_itaipu_b2b3b4.tif"
    if not scene_path.exists():
        pytest.skip("the sample data is not here")
    file = scene_path.with_name("landsat8_itaipu_train_polygons.gpkg")
    with open_scene(scene_path) as scene:
        area = read_area(file, scene)
        expected = by_centres(shapely.union_all(shapely.from_wkb(pyogrio.raw.read(file)[2])), scene)
        assert np.array_equal(whole(area, scene), expected)
        assert area.pixels == 683
