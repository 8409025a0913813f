"""Areas: from polygons in QGIS to a result that has classes inside them only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from osgeo import gdal, ogr, osr

import rest_qgis.processing.area as area_module
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsFeedback,
    QgsGeometry,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
    QgsVectorLayer,
)
from rest_qgis.plugin import RestPlugin
from rest_qgis.processing.area import Area
from rest_qgis.processing.errors import AreaError, RunError, SceneError
from rest_qgis.processing.handover import Handover
from rest_qgis.processing.scene import Placement, placement
from tests.qgis.feedback import Feedback
from tests.qgis.stage import MODEL, make_scene, read

UTM = QgsCoordinateReferenceSystem("EPSG:26910")
WGS84 = QgsCoordinateReferenceSystem("EPSG:4326")
NOWHERE = QgsCoordinateReferenceSystem()
CONTEXT = QgsCoordinateTransformContext()
WIDTH, HEIGHT = 200, 150
LEFT, TOP, PIXEL = 523653.0, 5267262.0, 0.3
NORTH_UP = (LEFT, PIXEL, 0.0, TOP, 0.0, -PIXEL)
ROTATED = (LEFT, 0.24, 0.18, TOP, 0.18, -0.24)


def in_map(points: list[tuple[float, float]], transform: tuple[float, ...] = NORTH_UP) -> str:
    """The polygon through points in pixels, in map coordinates, as WKT."""
    corners = [gdal.ApplyGeoTransform(transform, x, y) for x, y in [*points, points[0]]]
    return "Polygon ((" + ", ".join(f"{x!r} {y!r}" for x, y in corners) + "))"


TRIANGLE = [(30.2, 20.2), (150.7, 40.4), (60.4, 121.7)]
SQUARE = [(120.2, 90.2), (180.2, 90.2), (180.2, 140.2), (120.2, 140.2)]
BOW = [(20.2, 20.3), (100.2, 20.3), (20.2, 80.3), (100.2, 80.3)]  # crosses itself


def inside(*polygons: list[tuple[float, float]]) -> np.ndarray:
    """Pixels whose centre lies inside polygons given in pixels."""
    shapes = [QgsGeometry.fromWkt(in_map(points, (0, 1, 0, 0, 0, 1))).makeValid() for points in polygons]
    shape = QgsGeometry.unaryUnion(shapes)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    box = shape.boundingBox()
    engine = QgsGeometry.createGeometryEngine(shape.constGet())
    engine.prepareGeometry()
    for row in range(max(0, int(box.yMinimum()) - 1), min(HEIGHT, int(box.yMaximum()) + 2)):
        for column in range(max(0, int(box.xMinimum()) - 1), min(WIDTH, int(box.xMaximum()) + 2)):
            centre = QgsGeometry.fromWkt(f"Point ({column + 0.5} {row + 0.5})")
            mask[row, column] = engine.contains(centre.constGet())
    return mask


def layer_of(*shapes: str, crs: str = "EPSG:26910", kind: str = "Polygon") -> QgsVectorLayer:
    """A layer in memory."""
    layer = QgsVectorLayer(f"{kind}?crs={crs}" if crs else kind, "fields", "memory")
    if not crs:
        layer.setCrs(NOWHERE)
    features = []
    for shape in shapes:
        feature = QgsFeature()
        feature.setGeometry(QgsGeometry.fromWkt(shape))
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    layer.updateExtents()
    return layer


def brought(layer: QgsVectorLayer, crs: QgsCoordinateReferenceSystem) -> QgsVectorLayer:
    """The same polygons in another coordinate system."""
    transform = QgsCoordinateTransform(layer.crs(), crs, CONTEXT)
    shapes = []
    for feature in layer.getFeatures():
        geometry = feature.geometry()
        geometry.transform(transform)
        shapes.append(geometry.asWkt(12))
    return layer_of(*shapes, crs=crs.authid())


def file_of(layer: QgsVectorLayer, folder: Path) -> str:
    """The layer as a file; a script's input is a file or a layer of the project."""
    QgsProject.instance().addMapLayer(layer)
    return layer.id()


def stored(path: str) -> tuple[list[str], str]:
    """Polygons of a file, and the code of its coordinate system."""
    source = ogr.Open(path)
    (layer,) = [source.GetLayer(number) for number in range(source.GetLayerCount())]
    reference = layer.GetSpatialRef()
    code = reference.GetAuthorityCode(None) if reference is not None else None
    return [feature.GetGeometryRef().ExportToIsoWkt() for feature in layer], code or ""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", WIDTH, HEIGHT)


@pytest.fixture
def utm_scene(scene: Path) -> Placement:
    return Placement(str(scene), UTM, UTM)


# --- the file ---------------------------------------------------------------------------


def test_selected_polygons_alone_are_written(tmp_path: Path, utm_scene: Placement) -> None:
    layer = layer_of(in_map(TRIANGLE), in_map(SQUARE))
    first, second = [feature.id() for feature in layer.getFeatures()]
    layer.select(second)
    area = Area.of_layer(layer, selected_only=True)
    layer.select(first)  # the selection counts as it was
    path = area.write(tmp_path, utm_scene, CONTEXT)
    shapes, code = stored(path)
    assert len(shapes) == 1
    assert QgsGeometry.fromWkt(shapes[0]).isGeosEqual(QgsGeometry.fromWkt(in_map(SQUARE)))
    assert code == "26910"
    assert area.extent.toString(6) == QgsGeometry.fromWkt(in_map(SQUARE)).boundingBox().toString(6)


def test_stays_in_its_own_coordinate_system(tmp_path: Path, utm_scene: Placement) -> None:
    layer = brought(layer_of(in_map(TRIANGLE)), WGS84)
    shapes, code = stored(Area.of_layer(layer).write(tmp_path, utm_scene, CONTEXT))
    assert code == "4326"
    assert QgsGeometry.fromWkt(shapes[0]).boundingBox().xMaximum() < -122


def test_is_a_snapshot_that_any_thread_writes_and_again(tmp_path: Path, utm_scene: Placement) -> None:
    layer = layer_of(in_map(TRIANGLE), in_map(SQUARE))
    area = Area.of_layer(layer)
    layer.dataProvider().truncate()
    del layer
    written: list[str] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: written.append(area.write(tmp_path, utm_scene, CONTEXT)))
        thread.start()
        thread.join()
        assert len(stored(written[-1])[0]) == 2


def test_drawn_geometry_is_taken_as_it_was(tmp_path: Path, utm_scene: Placement) -> None:
    drawn = QgsGeometry.fromRect(QgsRectangle(LEFT, TOP - 10, LEFT + 10, TOP))
    area = Area.of_geometry(drawn, UTM)
    drawn.translate(1000, 0)  # the tool goes on drawing
    shapes, _ = stored(area.write(tmp_path, utm_scene, CONTEXT))
    assert QgsGeometry.fromWkt(shapes[0]).boundingBox() == QgsRectangle(LEFT, TOP - 10, LEFT + 10, TOP)


@pytest.mark.parametrize(
    ("kind", "shape", "count"),
    [
        ("PolygonZM", "PolygonZM ((0 0 5 1, 10 0 5 1, 10 10 5 1, 0 0 5 1))", 1),
        ("CurvePolygon", "CurvePolygon (CircularString (0 0, 5 5, 10 0, 5 -5, 0 0))", 1),
        ("MultiPolygon", "MultiPolygon (((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))", 1),
    ],
)
def test_polygons_of_every_kind_become_plain_ones(
    tmp_path: Path, utm_scene: Placement, kind: str, shape: str, count: int
) -> None:
    shapes, _ = stored(Area.of_layer(layer_of(shape, kind=kind)).write(tmp_path, utm_scene, CONTEXT))
    assert len(shapes) == count
    assert shapes[0].startswith("MULTIPOLYGON (((")
    expected = QgsGeometry.fromWkt(shape)
    assert QgsGeometry.fromWkt(shapes[0]).area() == pytest.approx(
        QgsGeometry(expected.constGet().segmentize()).area()
    )


def test_collection_gives_its_polygons(tmp_path: Path, utm_scene: Placement) -> None:
    (polygon,) = area_module._polygons(
        QgsGeometry.fromWkt("GeometryCollection (Point (1 1), Polygon ((0 0, 1 0, 1 1, 0 0)))")
    )
    assert polygon.area() == 0.5


@pytest.mark.parametrize(
    ("take", "sentence"),
    [
        (lambda: Area.of_layer(None), "Choose a polygon layer"),
        (lambda: Area.of_layer(QgsVectorLayer("/nowhere.gpkg", "gone", "ogr")), "Choose a polygon layer"),
        (lambda: Area.of_layer(layer_of("Point (1 1)", kind="Point")), "has no polygons"),
        (lambda: Area.of_layer(layer_of(in_map(SQUARE)), selected_only=True), "is selected"),
        (lambda: Area.of_geometry(QgsGeometry(), UTM), "Draw"),
        (lambda: Area.of_geometry(QgsGeometry.fromWkt("Point (1 1)"), UTM), "Draw"),
    ],
    ids=["none", "broken", "points", "nothing selected", "nothing drawn", "a point drawn"],
)
def test_area_without_polygons_is_refused(take: Callable[[], Area], sentence: str) -> None:
    with pytest.raises(AreaError, match=rf"{sentence}.*\(E_AOI_EMPTY\)"):
        take()


def test_layer_of_nothing_leaves_nothing(tmp_path: Path, utm_scene: Placement) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    with pytest.raises(AreaError, match="holds no polygons.*E_AOI_EMPTY"):
        Area.of_layer(layer_of()).write(folder, utm_scene, CONTEXT)
    assert list(folder.iterdir()) == []


def test_area_without_coordinate_system_on_a_scene_with_one_is_refused(
    tmp_path: Path, utm_scene: Placement
) -> None:
    with pytest.raises(AreaError, match="E_AOI_CRS"):
        Area.of_layer(layer_of(in_map(SQUARE), crs="")).write(tmp_path, utm_scene, CONTEXT)


def test_cancel_leaves_nothing(tmp_path: Path, utm_scene: Placement) -> None:
    folder, feedback = tmp_path / "inbox", QgsFeedback()
    folder.mkdir()
    feedback.cancel()
    with pytest.raises(RunError, match="E_CANCELLED"):
        Area.of_layer(layer_of(in_map(SQUARE))).write(folder, utm_scene, CONTEXT, feedback)
    assert list(folder.iterdir()) == []


def test_folder_that_cannot_be_written_is_told(tmp_path: Path, utm_scene: Placement) -> None:
    with pytest.raises(AreaError, match="E_AOI_WRITE"):
        Area.of_layer(layer_of(in_map(SQUARE))).write(tmp_path / "gone", utm_scene, CONTEXT)


def test_scene_whose_coordinate_system_the_user_set_is_met_there(tmp_path: Path) -> None:
    """The daemon sees the file alone, so the polygons must come to its coordinates."""
    scene = QgsRasterLayer(str(make_scene(tmp_path / "scene.tif", 60, 60, crs=False)))
    scene.setCrs(UTM)
    area = Area.of_layer(brought(layer_of(in_map(TRIANGLE)), WGS84))
    shapes, code = stored(area.write(tmp_path, placement(scene), CONTEXT))
    assert code == ""
    expected = QgsGeometry.fromWkt(in_map(TRIANGLE)).boundingBox()
    box = QgsGeometry.fromWkt(shapes[0]).boundingBox()
    assert box.xMinimum() == pytest.approx(expected.xMinimum(), abs=0.01)
    assert box.yMaximum() == pytest.approx(expected.yMaximum(), abs=0.01)


def test_extent_and_polygons_that_do_not_meet_are_refused(scene: Path) -> None:
    layer = QgsRasterLayer(str(scene))
    extent = QgsReferencedRectangle(QgsRectangle(LEFT, TOP - 3, LEFT + 3, TOP), UTM)
    with pytest.raises(SceneError, match="do not meet"):
        Handover(layer, extent, Area.of_layer(layer_of(in_map(SQUARE))))


# --- the result -------------------------------------------------------------------------


@pytest.fixture
def run(plugin: RestPlugin, qgis_processing: None, tmp_path: Path) -> Any:
    import processing

    def segment(**parameters: Any) -> np.ndarray:
        """The classes on the whole scene's grid, 255 where there is none."""
        output = tmp_path / "classes.tif"
        processing.run("rest:segment", {"MODEL": MODEL, "OUTPUT": str(output), **parameters}, **feedback)
        part, whole = gdal.Open(str(output)), gdal.Open(str(parameters["INPUT"]))
        inverse = gdal.InvGeoTransform(whole.GetGeoTransform())
        origin = gdal.ApplyGeoTransform(inverse, *part.GetGeoTransform()[0:4:3])
        column, row = (round(value) for value in origin)
        assert origin == pytest.approx((column, row), abs=1e-3)  # on the scene's own pixels
        classes = np.full((whole.RasterYSize, whole.RasterXSize), 255, np.uint8)
        classes[row : row + part.RasterYSize, column : column + part.RasterXSize] = read(output)
        return classes

    feedback: dict[str, Any] = {}
    segment.feedback = feedback
    return segment


@pytest.fixture
def whole(run: Any, scene: Path) -> np.ndarray:
    classes = run(INPUT=str(scene))
    assert (classes != 255).sum() == WIDTH * HEIGHT - 40 * 50
    return classes


def masked(whole: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.where(mask, whole, 255).astype(np.uint8)


def test_polygons_mask_the_result_and_change_nothing_inside(run: Any, scene: Path, whole: np.ndarray) -> None:
    """A whole AOI layer, its selection, both in other coordinate systems, and with an extent."""
    layer = brought(layer_of(in_map(TRIANGLE), in_map(SQUARE)), WGS84)
    name = file_of(layer, scene.parent)
    both = masked(whole, inside(TRIANGLE, SQUARE))
    assert (both != 255).sum() > 5000
    assert (run(INPUT=str(scene), AOI=name) == both).all()

    layer.select([feature.id() for feature in layer.getFeatures()][1])
    selected = QgsProcessingFeatureSourceDefinition(name, True)
    assert (run(INPUT=str(scene), AOI=selected) == masked(whole, inside(SQUARE))).all()

    # Left half of the scene, as a canvas in degrees would give it: a box around it.
    half = QgsRectangle(LEFT, TOP - HEIGHT * PIXEL, LEFT + 100 * PIXEL, TOP)
    degrees = QgsCoordinateTransform(UTM, WGS84, CONTEXT).transformBoundingBox(half)
    text = f"{degrees.xMinimum()!r},{degrees.xMaximum()!r},{degrees.yMinimum()!r},{degrees.yMaximum()!r}"
    classes = run(INPUT=str(scene), AOI=name, EXTENT=f"{text} [EPSG:4326]")
    assert (classes[:, :100] == both[:, :100]).all()
    assert (classes[:, 106:] == 255).all()


def test_selection_that_is_empty_is_refused(run: Any, scene: Path) -> None:
    name = file_of(layer_of(in_map(TRIANGLE)), scene.parent)
    with pytest.raises(Exception, match="E_AOI_EMPTY"):
        run(INPUT=str(scene), AOI=QgsProcessingFeatureSourceDefinition(name, True))


def test_area_elsewhere_is_refused_with_the_daemons_words(run: Any, scene: Path, engine_home: Path) -> None:
    name = file_of(layer_of(in_map([(900, 900), (950, 900), (950, 950)])), scene.parent)
    with pytest.raises(Exception, match="E_AOI_OUTSIDE"):
        run(INPUT=str(scene), AOI=name)
    assert not list((engine_home / "inbox").glob("*"))


def test_self_crossing_polygon_is_repaired_and_told(run: Any, scene: Path, whole: np.ndarray) -> None:
    run.feedback["feedback"] = feedback = Feedback()
    classes = run(INPUT=str(scene), AOI=file_of(layer_of(in_map(BOW)), scene.parent))
    assert (classes == masked(whole, inside(BOW))).all()
    assert any("repair" in warning for warning in feedback.warnings), feedback.warnings


@pytest.mark.parametrize("kind", ["degrees", "rotated", "no system", "set by the user", "no georeference"])
def test_scenes_in_other_places(run: Any, tmp_path: Path, kind: str) -> None:
    """EPSG:4326, rotated, and the three ways to know nothing."""
    path = make_scene(tmp_path / "placed.tif", WIDTH, HEIGHT, crs=kind in ("degrees", "rotated"))
    dataset = gdal.Open(str(path), gdal.GA_Update)
    transform, crs = NORTH_UP, ""
    if kind == "degrees":
        transform, crs = (-122.7, 4e-6, 0.0, 47.55, 0.0, -2.7e-6), "EPSG:4326"
        reference = osr.SpatialReference()
        reference.ImportFromEPSG(4326)
        dataset.SetSpatialRef(reference)
    elif kind == "rotated":
        transform, crs = ROTATED, "EPSG:26910"
    if kind == "no georeference":
        transform = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)  # as QGIS shows it
        del dataset
        values = gdal.Open(str(path)).ReadAsArray()
        path = tmp_path / "bare.tif"
        bare = gdal.GetDriverByName("GTiff").Create(str(path), WIDTH, HEIGHT, 3, gdal.GDT_Byte)
        bare.WriteArray(values)
        del bare
        assert gdal.Open(str(path)).GetGeoTransform(can_return_null=True) is None
    else:
        dataset.SetGeoTransform(transform)
        del dataset
    layer = QgsRasterLayer(str(path), "placed")
    if kind == "set by the user":
        layer.setCrs(UTM)
        crs = "EPSG:26910"
    QgsProject.instance().addMapLayer(layer)
    area = layer_of(in_map(TRIANGLE, transform), crs=crs)
    if crs:  # in a system other than the scene's
        area = brought(area, QgsCoordinateReferenceSystem("EPSG:3857"))
    whole = run(INPUT=str(path))
    QgsProject.instance().addMapLayer(area)
    import processing

    output = tmp_path / "part.tif"
    processing.run("rest:segment", {"INPUT": layer.id(), "AOI": area.id(), "OUTPUT": str(output)})
    mask = inside(TRIANGLE)
    rows, columns = np.nonzero(mask)
    box = (slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1))
    assert (read(output) == masked(whole, mask)[box]).all()
