"""Areas: which pixels lie inside polygons, in any reference system."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.warp import transform as transform_points

from rest_backend.errors import CancelledError
from rest_backend.rasters import vectors
from rest_backend.rasters.area import BAND, read_area
from rest_backend.rasters.scene import Scene, open_scene
from tests.rasters.areas import SIMPLE, STAR, UTM, by_centres, place, save, scene_file, star, whole
from tests.rasters.makers import ROTATED, SOUTH_UP

DATA = Path(__file__).parents[3] / "shared" / "data"


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
