"""What a raster says of its bands: names, colours and wavelengths, and the roles they tell.

Wavelengths are read from wherever the common formats put them, in this order:

* the IMAGERY domain's ``CENTRAL_WAVELENGTH_UM`` (GDAL's own);
* a band's ``wavelength``, ``wavelengths``, ``center_wavelength`` or ``central_wavelength``;
* the same names as a list of all bands in the file's or ENVI's metadata;
* a band's description: ``band 12 (0.478 Micrometers)``, ``B4, central wavelength 665 nm``.

A value without a unit is taken as micrometres below 100 and as nanometres above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rest_backend.rasters.environment import raster_environment
from rest_backend.rasters.header import Header, open_raster, read_header
from rest_backend.rasters.roles import role_at, roles_of_names

MAXIMUM_LIST = 64 * 1024  # characters of metadata that are looked at

# GDAL's colour interpretations that are roles, by name: older libraries do not have all of them.
_COLOURS = frozenset(
    {"red", "green", "blue", "yellow", "pan", "coastal", "rededge", "nir", "swir", "tir", "alpha"}
)
_KEYS = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "centre_wavelength")
_UNIT_KEYS = (
    "wavelength_unit",
    "wavelength_units",
    "wavelengths_unit",
    "wavelengths_units",
    "center_wavelength_unit",
    "center_wavelength_units",
    "central_wavelength_unit",
    "central_wavelength_units",
)
_NANOMETRES = {  # by unit
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1000.0,
    "µm": 1000.0,
    "μm": 1000.0,
    "micron": 1000.0,
    "micrometer": 1000.0,
    "micrometre": 1000.0,
}
_NUMBER = r"\d{1,7}(?:\.\d{1,12})?(?:e[+-]?\d{1,2})?"
_DESCRIBED = re.compile(  # one wavelength, or the first and the last
    rf"(?:({_NUMBER})\s*[-–]\s*)?({_NUMBER})\s*(nm|nanomet(?:er|re)s?|[uµμ]m|microns?|micromet(?:er|re)s?)\b",
    re.I,
)
_WITHOUT_UNIT = re.compile(r"unknown|index|", re.I)


@dataclass(frozen=True)
class SceneBand:
    """One band of a raster, as the file describes it.

    Attributes:
        number: 1-based.
        name: Its description, ``Band N`` without one.
        role: What it shows (``red``, ``nir``, ``vv`` ...), empty where the file does not tell.
        wavelength_nm: Centre wavelength in nanometres, or None.
        dtype: Stored type, such as ``uint16``.
        role_from: What tells the role: ``name``, ``wavelength``, ``colour`` or empty.
        bad: Whether the file's list of bad bands (``bbl``) has it.
    """

    number: int
    name: str
    role: str
    wavelength_nm: float | None
    dtype: str
    role_from: str = ""
    bad: bool = False


def scene_bands(path: str | os.PathLike[str]) -> tuple[SceneBand, ...]:
    """Read what a raster says of its bands; no pixel is read.

    Args:
        path: The raster file.

    Returns:
        All bands of the file, in order, an alpha band (role ``alpha``) among them.

    Raises:
        InputError: With a code of :mod:`~rest_backend.rasters.header`.
    """
    with raster_environment():
        header = read_header(path)
        with open_raster(header.path) as dataset:
            shared = [_lower(dataset.tags()), _lower(dataset.tags(ns="ENVI"))]
            own = [
                (_lower(dataset.tags(number)), _lower(dataset.tags(number, ns="IMAGERY")))
                for number in range(1, header.band_count + 1)
            ]
    lists = _listed_wavelengths(shared, header.band_count)
    bad = _listed_bad(shared, header.band_count)
    named = roles_of_names(header.names, header.path.name)
    result = []
    for index, (tags, imagery) in enumerate(own):
        wavelength = _wavelength(tags, imagery, lists[index], header.names[index])
        role, role_from = _role(header, index, named[index], wavelength)
        result.append(
            SceneBand(
                number=index + 1,
                name=header.names[index],
                role=role,
                wavelength_nm=wavelength,
                dtype=header.dtypes[index],
                role_from=role_from,
                bad=bad[index] or tags.get("bbl", "1").strip() == "0",
            )
        )
    return tuple(result)


def _role(header: Header, index: int, named: str, wavelength: float | None) -> tuple[str, str]:
    colour = header.interpretations[index].name
    if colour == "alpha":
        return colour, "colour"
    if named:
        return named, "name"
    if wavelength is not None and role_at(wavelength):
        return role_at(wavelength), "wavelength"
    if colour in _COLOURS:
        return colour, "colour"
    return "", ""


def _wavelength(
    tags: Mapping[str, str], imagery: Mapping[str, str], listed: float | None, name: str
) -> float | None:
    found = _nanometres(imagery.get("central_wavelength_um", ""), "um")
    if found is None:
        unit = _unit(tags)
        found = next(
            (value for key in _KEYS if (value := _nanometres(tags.get(key, ""), unit)) is not None), None
        )
    if found is None:
        found = listed
    if found is None and (described := _DESCRIBED.search(name[:256])):
        first, last, unit = described.groups()
        middle = float(last) if first is None else (float(first) + float(last)) / 2
        found = _nanometres(f"{middle:.9f}", unit)
    return found


def _listed_wavelengths(shared: list[dict[str, str]], count: int) -> list[float | None]:
    for tags in shared:
        for key in _KEYS:
            values = _items(tags.get(key, ""))
            if len(values) == count:
                unit = _unit(tags)
                return [_nanometres(value, unit) for value in values]
    return [None] * count


def _listed_bad(shared: list[dict[str, str]], count: int) -> list[bool]:
    for tags in shared:
        values = _items(tags.get("bbl", ""))
        if len(values) == count:
            return [value in ("0", "0.0") for value in values]
    return [False] * count


def _items(text: str) -> list[str]:
    """The items of a list such as ``{0.478, 0.55}``."""
    return [item for item in re.split(r"[\s,;{}\[\]()]+", text[:MAXIMUM_LIST]) if item]


def _unit(tags: Mapping[str, str]) -> str:
    return next((tags[key].strip() for key in _UNIT_KEYS if key in tags), "")


def _nanometres(text: str, unit: str) -> float | None:
    """A number and its unit in nanometres; None where it is none, or no wavelength of light or heat."""
    match = re.fullmatch(rf"\s*({_NUMBER})\s*([a-zµμ]*)\s*", text[:256], re.I)
    if match is None:
        return None
    value = float(match[1])
    unit = (match[2] or unit).lower()
    factor = _NANOMETRES.get(unit) or _NANOMETRES.get(unit.removesuffix("s"))
    if factor is None:
        if not _WITHOUT_UNIT.fullmatch(unit):  # wave numbers, gigahertz
            return None
        factor = 1000.0 if value < 100 else 1.0
    # Micrometre values such as 0.66 have no exact binary form: no 660.0000000001 for people.
    value = round(value * factor, 4)
    return value if 100 <= value <= 1e6 else None


def _lower(tags: Mapping[str, Any]) -> dict[str, str]:
    return {str(key).lower(): str(value) for key, value in tags.items()}
