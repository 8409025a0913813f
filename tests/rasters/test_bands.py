"""What rasters say of their bands, wherever their formats put it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from rest_backend.errors import InputError
from rest_backend.rasters.bands import scene_bands
from rest_backend.rasters.roles import canonical_role, role_at, roles_of_names
from tests.rasters.makers import ramp, write_raster

DATA = Path(__file__).parents[3] / "shared" / "data"


def data(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"the sample data has no {name} here")
    return DATA / name


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("Red", "red"),
        ("SWIR 1", "swir1"),
        ("swir_2", "swir2"),
        ("RedEdge", "rededge"),
        ("Red Edge 3", "rededge3"),
        ("Near Infrared", "nir"),
        ("Narrow NIR", "nir08"),
        ("short-wave infrared 1", "swir1"),
        ("coastal aerosol", "coastal"),
        ("VV", "vv"),
        ("sigma0_VH_db", "vh"),
        ("B2 blue", "blue"),
        ("R", "red"),
        ("IR", "nir"),
        ("near-IR", "nir"),
        ("mid IR", "mir"),
        ("thermal infrared", "tir"),
        ("Band 1", ""),
        ("redness", ""),
        ("red minus nir", ""),
        ("", ""),
        ("B4", ""),  # red of Sentinel-2, near infrared of Landsat 7
    ],
)
def test_a_name_tells_its_role(name: str, role: str) -> None:
    assert roles_of_names([name]) == (role,)


@pytest.mark.parametrize(
    ("names", "product", "roles"),
    [
        (["B04", "B03", "B02"], "", ("red", "green", "blue")),
        (["B2", "B3", "B4", "B8"], "", ("blue", "green", "red", "nir")),
        (["B4", "B8A", "B12"], "", ("red", "nir08", "swir2")),
        (["B3", "B4", "B5"], "LC08_L1TP_224078.tif", ("green", "red", "nir")),
        (["B3", "B4", "B5"], "LT05_L1TP_224078.tif", ("red", "nir", "swir1")),
        (["SR_B4", "SR_B5", "ST_B10"], "", ("red", "nir", "tir1")),
        (["T33UUU_20200101_B08_10m", "x"], "", ("nir", "")),
        ([f"B{number}" for number in range(1, 8)], "", ("",) * 7),  # Landsat 5 or Landsat 8
        ([f"B{number}" for number in range(1, 15)], "", ("",) * 14),  # ASTER
        ([f"B{number}" for number in range(10, 15)], "", ("",) * 5),
    ],
)
def test_codes_count_only_where_they_mean_one_thing(
    names: list[str], product: str, roles: tuple[str, ...]
) -> None:
    assert roles_of_names(names, product) == roles


def test_roles_of_cards_are_brought_to_one_word() -> None:
    assert [canonical_role(role) for role in ("SWIR 16", "near-infrared", "red", "My Index")] == [
        "swir1",
        "nir",
        "red",
        "myindex",
    ]


@pytest.mark.parametrize(
    ("nm", "role"), [(478, "blue"), (655, "red"), (1200, ""), (10.0, ""), (11000, "tir1")]
)
def test_a_wavelength_tells_its_role(nm: float, role: str) -> None:
    assert role_at(nm) == role


@pytest.mark.parametrize(
    ("tags", "namespace", "nm"),
    [
        ({"wavelength": "665", "wavelength_units": "Nanometers"}, None, 665.0),
        ({"WAVELENGTH": "0.665", "WAVELENGTH_UNITS": "Micrometers"}, None, 665.0),
        ({"wavelength": "0.665"}, None, 665.0),
        ({"center_wavelength": "665"}, None, 665.0),
        ({"wavelengths": "665 nm"}, None, 665.0),
        ({"wavelength": "0.665", "wavelength_unit": "µm"}, None, 665.0),
        ({"CENTRAL_WAVELENGTH_UM": "0.665"}, "IMAGERY", 665.0),
        ({"wavelength": "10.9", "wavelength_units": "um"}, None, 10900.0),
        ({"wavelength": "5.4", "wavelength_units": "GHz"}, None, None),
        ({"wavelength": "red"}, None, None),
        ({"wavelength": "-665"}, None, None),
        ({"wavelength": "nan"}, None, None),
        ({"wavelength": "1" * 400}, None, None),
        ({"wavelength": "3"}, None, 3000.0),
    ],
)
def test_wavelengths_of_band_metadata(
    tmp_path: Path, tags: dict[str, str], namespace: str | None, nm: float | None
) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(2, 4, 4, "uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(1, ns=namespace, **tags) if namespace else dataset.update_tags(1, **tags)
    first, second = scene_bands(path)
    assert first.wavelength_nm == nm
    assert second.wavelength_nm is None


@pytest.mark.parametrize(
    ("name", "nm"),
    [
        ("band 12 (0.478 Micrometers)", 478.0),
        ("band 1 (418.24 Nanometers)", 418.24),
        ("B4, central wavelength 665 nm", 665.0),
        ("red 0.66um", 660.0),
        ("Blue (450-520 nm)", 485.0),
        ("0.45 – 0.52 µm", 485.0),
        ("2020-05-18", None),
        ("row 12 numbers", None),
    ],
)
def test_wavelengths_of_descriptions(tmp_path: Path, name: str, nm: float | None) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(1, 4, 4), names=(name,))
    (band,) = scene_bands(path)
    assert (band.wavelength_nm, band.name) == (nm, name)


def test_lists_of_all_bands(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 4, 4, "uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(wavelength="{0.478, 0.55 , 0.66}", wavelength_units="Micrometers", bbl="{1,0,1}")
    bands = scene_bands(path)
    assert [band.wavelength_nm for band in bands] == [478.0, 550.0, 660.0]
    assert [band.role for band in bands] == ["blue", "green", "red"]
    assert [band.bad for band in bands] == [False, True, False]


def test_a_list_of_another_length_is_no_list_of_the_bands(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 4, 4, "uint16"))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(wavelength="{0.478, 0.55}", bbl="{0}")
    assert [(band.wavelength_nm, band.bad) for band in scene_bands(path)] == [(None, False)] * 3


def test_an_envi_header(tmp_path: Path) -> None:
    path = tmp_path / "scene.dat"
    write_raster(path, ramp(3, 4, 4, "uint16"), driver="ENVI")
    header = path.with_suffix(".hdr")
    header.write_text(
        header.read_text().split("band names")[0]
        + "wavelength units = Micrometers\nwavelength = {0.478, 0.55, 0.66}\nbbl = {1, 1, 0}\n"
    )
    bands = scene_bands(path)
    assert [band.wavelength_nm for band in bands] == [478.0, 550.0, 660.0]
    assert [band.bad for band in bands] == [False, False, True]


def test_colours_of_the_file_and_alpha(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(4, 4, 4), photometric="RGB", ALPHA="YES")
    bands = scene_bands(path)
    assert [(band.role, band.role_from) for band in bands] == [
        ("red", "colour"),
        ("green", "colour"),
        ("blue", "colour"),
        ("alpha", "colour"),
    ]


def test_a_name_counts_more_than_a_colour(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "scene.tif", ramp(3, 4, 4), photometric="RGB", names=("nir", "red", "green")
    )
    assert [(band.role, band.role_from) for band in scene_bands(path)] == [
        ("nir", "name"),
        ("red", "name"),
        ("green", "name"),
    ]


def test_bands_that_say_nothing(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", ramp(3, 4, 4), photometric="MINISBLACK")
    assert [(band.number, band.name, band.role, band.wavelength_nm) for band in scene_bands(path)] == [
        (1, "Band 1", "", None),
        (2, "Band 2", "", None),
        (3, "Band 3", "", None),
    ]


def test_a_file_that_is_no_raster(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_text("no raster")
    with pytest.raises(InputError) as failed:
        scene_bands(tmp_path / "scene.tif")
    assert failed.value.code == "E_SCENE_NOT_RASTER"


def test_enmap() -> None:
    bands = scene_bands(data("hyperspectral/enmap_potsdam_224band.tif"))
    assert len(bands) == 224
    assert bands[0].wavelength_nm == 418.24
    assert np.all(np.diff([band.wavelength_nm for band in bands[:90]]) > 0)
    assert [band.number for band in bands if band.bad] == [130, 131, 132, 133, 134, 135]


def test_sentinel_1_and_2() -> None:
    assert [band.role for band in scene_bands(data("sar_optical_flood/spain_s1_vv_vh.tif"))] == ["vv", "vh"]
    roles = [band.role for band in scene_bands(data("sar_optical_flood/spain_s2_13band.tif"))]
    assert roles[:5] == ["coastal", "blue", "green", "red", "rededge1"]
    assert roles[7:] == ["nir", "nir08", "nir09", "cirrus", "swir1", "swir2"]
