"""Which band of a scene goes where in a model: real scenes of 1 to 224 bands, and doubtful ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from rest_backend.errors import InputError
from rest_backend.methods.bands import ORDERS, BandMatch, match_bands
from rest_backend.models.card import (
    Architecture,
    Band,
    ClassEntry,
    GroundResolution,
    ModelCard,
    Normalisation,
)
from rest_backend.rasters.bands import SceneBand, scene_bands
from tests.rasters.makers import ramp, write_raster

DATA = Path(__file__).parents[3] / "shared" / "data"


def data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"the sample data has no {name} here")
    return DATA / name


def card(*roles: str, wavelengths: dict[str, float] | None = None) -> ModelCard:
    return ModelCard(
        format=1,
        id="tiny",
        name="Tiny",
        architecture=Architecture(encoder="tu-resnet10t", decoder="unet"),
        bands=[Band(name=role, role=role, wavelength_nm=(wavelengths or {}).get(role)) for role in roles],
        ground_resolution_m=GroundResolution(expected=1, minimum=0.5, maximum=2),
        normalisation=Normalisation(method="scene"),
        classes=[ClassEntry(id=0, name="a", color="#000000"), ClassEntry(id=1, name="b", color="#ffffff")],
        licence="CC0-1.0",
        sha256="0" * 64,
    )


RGB = card("red", "green", "blue")


def bands_of(matches: tuple[BandMatch, ...]) -> list[tuple[int | None, str]]:
    return [(match.band, match.how) for match in matches]


def plain(count: int, dtype: str = "uint8") -> list[SceneBand]:
    return [SceneBand(number, f"Band {number}", "", None, dtype) for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("multispectral/rotated_geotransform_20x20.tif", [(None, "missing")] * 3),
        ("building_kitsap/kitsap_rgb.tif", [(1, "colour"), (2, "colour"), (3, "colour")]),
        ("multispectral/landsat8_itaipu_b2b3b4.tif", [(3, "name"), (2, "name"), (1, "name")]),
        ("multispectral/landsat7_olinda_6band.tif", [(3, "order"), (2, "order"), (1, "order")]),
        ("sar_optical_flood/spain_s2_13band.tif", [(4, "name"), (3, "name"), (2, "name")]),
        ("sar_optical_flood/spain_s1_vv_vh.tif", [(None, "missing")] * 3),
    ],
)
def test_red_green_blue_of_real_scenes(name: str, expected: list[tuple[int | None, str]]) -> None:
    assert bands_of(match_bands(RGB, scene_bands(data(name)))) == expected


def test_a_hyperspectral_scene_is_matched_by_wavelength() -> None:
    bands = scene_bands(data("hyperspectral/enmap_potsdam_224band.tif"))
    matches = match_bands(card("red", "green", "blue", "nir", "swir1"), bands)
    assert {match.how for match in matches} == {"wavelength"}
    for match, wanted in zip(matches, (660, 560, 485, 842, 1610), strict=True):
        assert match.band is not None
        assert match.sure
        found = bands[match.band - 1].wavelength_nm
        assert found is not None
        assert abs(found - wanted) == min(abs(band.wavelength_nm - wanted) for band in bands if not band.bad)
        assert f"{wanted} nm" in match.reason


@pytest.mark.parametrize("fourth", [ColorInterp.alpha, ColorInterp.nir])
def test_a_fourth_band(tmp_path: Path, fourth: ColorInterp) -> None:
    with rasterio.open(data("aerial_drone/neon_osbs_029_rgb.tif")) as dataset:
        values = dataset.read()[:, :32, :32]
    path = write_raster(tmp_path / "four.tif", np.concatenate([values, values[:1]]), photometric="RGB")
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, fourth)
    bands = scene_bands(path)
    assert bands_of(match_bands(RGB, bands)) == [(1, "colour"), (2, "colour"), (3, "colour")]
    nir = match_bands(card("nir", "red"), bands)
    assert bands_of(nir) == [
        (4, "colour") if fourth == ColorInterp.nir else (None, "missing"),
        (1, "colour"),
    ]


def test_three_bytes_without_colours_are_an_assumption(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 8, 8), photometric="MINISBLACK")
    matches = match_bands(RGB, scene_bands(path))
    assert bands_of(matches) == [(1, "order"), (2, "order"), (3, "order")]
    assert not any(match.sure for match in matches)
    assert "does not say" in matches[0].reason


@pytest.mark.parametrize(
    ("count", "dtype", "expected"),
    [
        (4, "uint8", [1, 2, 3, 4]),
        (4, "uint16", [3, 2, 1, 4]),
        (6, "uint8", [3, 2, 1, 4]),
        (7, "uint16", [4, 3, 2, 5]),
        (11, "uint16", [4, 3, 2, 5]),
        (10, "uint16", [3, 2, 1, 7]),
        (12, "int16", [4, 3, 2, 8]),
        (13, "uint16", [4, 3, 2, 8]),
        (3, "uint16", [None] * 4),  # red first, or blue first
        (2, "uint8", [None] * 4),
        (5, "uint16", [None] * 4),
        (8, "uint16", [None] * 4),
        (224, "int16", [None] * 4),
    ],
)
def test_orders_of_sensors(count: int, dtype: str, expected: list[int | None]) -> None:
    matches = match_bands(card("red", "green", "blue", "nir"), plain(count, dtype))
    assert [match.band for match in matches] == expected
    assert {match.how for match in matches} == {"missing" if expected[0] is None else "order"}


def test_a_scene_with_too_few_bands_is_told_so() -> None:
    matches = match_bands(RGB, plain(2))
    assert bands_of(matches) == [(None, "missing")] * 3
    assert {match.reason for match in matches} == {"The scene has 2 bands of data, and the model reads 3."}


def test_each_order_names_every_band_once() -> None:
    for order in ORDERS:
        assert len(set(order.roles)) == len(order.roles)
    assert sorted(len(order.roles) for order in ORDERS) == [3, 4, 4, 6, 7, 10, 11, 12, 13]


def test_an_order_that_the_file_contradicts_is_not_assumed() -> None:
    bands = plain(3)
    bands[0] = SceneBand(1, "nir", "nir", None, "uint8", "name")
    assert bands_of(match_bands(RGB, bands)) == [(None, "missing")] * 3
    bands = plain(4)
    bands[0] = SceneBand(1, "Band 1", "", 485.0, "uint8")
    assert bands_of(match_bands(RGB, bands)) == [(None, "missing"), (None, "missing"), (1, "wavelength")]


def test_an_order_fills_what_the_file_leaves_open() -> None:
    bands = plain(3)
    bands[1] = SceneBand(2, "Green", "green", None, "uint8", "name")
    assert bands_of(match_bands(RGB, bands)) == [(1, "order"), (2, "name"), (3, "order")]


def test_no_band_is_used_twice() -> None:
    bands = [SceneBand(1, "Band 1", "red", 665.0, "uint16", "wavelength")]
    matches = match_bands(card("red", "other", wavelengths={"red": 660.0, "other": 670.0}), bands)
    assert bands_of(matches) == [(1, "wavelength"), (None, "missing")]
    bands = plain(1)
    assert bands_of(match_bands(card("red", "nir"), bands)) == [(None, "missing")] * 2


def test_a_single_band_for_a_model_of_one_is_an_assumption() -> None:
    assert bands_of(match_bands(card("elevation"), plain(1))) == [(1, "order")]
    vv = [SceneBand(1, "VV", "vv", None, "float32", "name")]
    assert bands_of(match_bands(card("elevation"), vv)) == [(None, "missing")]
    assert bands_of(match_bands(card("vv"), vv)) == [(1, "name")]


def test_two_bands_of_one_name_are_for_the_user_to_tell_apart() -> None:
    bands = [SceneBand(n, f"red {n}", "red", None, "uint16", "name") for n in (1, 2)]
    (match,) = match_bands(card("red"), bands)
    assert (match.band, match.how) == (None, "missing")
    assert "Bands 1, 2" in match.reason


def test_the_wavelength_decides_between_bands_of_one_name() -> None:
    bands = [
        SceneBand(1, "nir a", "nir", 780.0, "uint16", "name"),
        SceneBand(2, "nir b", "nir", 850.0, "uint16", "name"),
    ]
    assert bands_of(match_bands(card("nir"), bands)) == [(2, "name")]


def test_bad_bands_are_passed_over() -> None:
    bands = [
        SceneBand(1, "Band 1", "red", 660.0, "int16", "wavelength", bad=True),
        SceneBand(2, "Band 2", "red", 668.0, "int16", "wavelength"),
    ]
    assert bands_of(match_bands(card("red"), bands)) == [(2, "wavelength")]


def test_the_model_s_own_names_count_but_not_the_names_of_unnamed_bands() -> None:
    bands = [SceneBand(1, "NDVI", "", None, "float32"), SceneBand(2, "Texture", "", None, "float32")]
    assert bands_of(match_bands(card("texture", "ndvi"), bands)) == [(2, "name"), (1, "name")]
    assert bands_of(match_bands(card("band 1", "band 2"), plain(2))) == [(None, "missing")] * 2


def test_a_code_is_no_name_of_its_own() -> None:
    model = card("red")
    band = Band(name="B4", role="red")
    model = ModelCard(**{name: getattr(model, name) for name in model.__struct_fields__} | {"bands": [band]})
    unknown = [SceneBand(4, "B4", "", None, "uint8")]  # near infrared, if it is Landsat 7
    assert bands_of(match_bands(model, unknown + plain(2))) == [(None, "missing")]
    assert bands_of(match_bands(model, [SceneBand(1, "B4", "red", None, "uint16", "name")])) == [(1, "name")]


def test_a_narrow_near_infrared_stands_in_only_where_nobody_wants_it() -> None:
    bands = [SceneBand(1, "B8A", "nir08", None, "uint16", "name")]
    assert bands_of(match_bands(card("nir"), bands)) == [(1, "name")]
    assert bands_of(match_bands(card("nir", "nir08"), bands)) == [(None, "missing"), (1, "name")]


def test_given_bands_are_taken_as_they_are() -> None:
    matches = match_bands(RGB, plain(6), given=(5, 4, 6))
    assert bands_of(matches) == [(5, "given"), (4, "given"), (6, "given")]
    assert all(match.sure for match in matches)


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ((1, 2), "E_BANDS_COUNT", "2 bands given"),
        ((1, 2, 3, 4), "E_BANDS_COUNT", "reads 3: red, green, blue"),
        ((1, 2, 7), "E_SCENE_BANDS", "Band 7"),
        ((0, 1, 2), "E_SCENE_BANDS", "Band 0"),
        ((-1, 1, 2), "E_SCENE_BANDS", "Band -1"),
        ((1, 2, 2), "E_BANDS_TWICE", "Band 2"),
    ],
)
def test_wrong_given_bands_are_refused(given: tuple[int, ...], code: str, told: str) -> None:
    with pytest.raises(InputError) as failed:
        match_bands(RGB, plain(6), given)
    assert failed.value.code == code
    assert told in failed.value.message
