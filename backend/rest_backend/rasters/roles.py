"""What bands show: the roles of bands, their wavelengths, and the names people give them.

Wavelengths are the centres of Sentinel-2's and Landsat 8's bands, rounded (ESA,
"Sentinel-2 User Handbook", table 1; USGS, "Landsat 8 Data Users Handbook", table 2-1);
role names follow the common names of STAC's EO extension, with ``swir1`` and ``swir2``
for ``swir16`` and ``swir22``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

WAVELENGTHS = {  # nm
    "coastal": 443.0,
    "blue": 485.0,
    "green": 560.0,
    "yellow": 605.0,
    "red": 660.0,
    "rededge1": 705.0,
    "rededge2": 740.0,
    "rededge3": 783.0,
    "nir": 842.0,
    "nir08": 865.0,
    "nir09": 945.0,
    "cirrus": 1375.0,
    "swir1": 1610.0,
    "swir2": 2200.0,
    "tir1": 10_900.0,
    "tir2": 12_000.0,
}
NEAREST_TOLERANCE = 30.0  # nm
RELATIVE_TOLERANCE = 0.05  # of the wavelength, where that is more

# Roles that a band of another role may fill: the best first.
_CLOSE = {
    "nir": ("nir08",),
    "nir08": ("nir",),
    "rededge": ("rededge1", "rededge2", "rededge3"),
    "rededge1": ("rededge",),
    "swir": ("swir1",),
    "swir1": ("swir",),
    "tir": ("tir1",),
    "tir1": ("tir",),
}

# Names as they come once spaces, dots, dashes and capitals are gone.
_ALIASES = {
    "coastal": "coastal", "coastalaerosol": "coastal", "coastalblue": "coastal", "ultrablue": "coastal",
    "aerosol": "coastal", "deepblue": "coastal",
    "blue": "blue", "green": "green", "yellow": "yellow", "red": "red",
    "rededge": "rededge", "re": "rededge", "vre": "rededge", "vegetationrededge": "rededge",
    "rededge1": "rededge1", "rededge2": "rededge2", "rededge3": "rededge3",
    "re1": "rededge1", "re2": "rededge2", "re3": "rededge3",
    "rededge071": "rededge1", "rededge075": "rededge2", "rededge078": "rededge3",
    "nir": "nir", "nir1": "nir", "nearir": "nir", "nearinfrared": "nir", "nirbroad": "nir",
    "nir08": "nir08", "narrownir": "nir08", "nirnarrow": "nir08", "nir8a": "nir08",
    "nir2": "nir09", "nir09": "nir09", "watervapour": "nir09", "watervapor": "nir09",
    "cirrus": "cirrus",
    "mir": "mir", "midir": "mir", "midinfrared": "mir", "middleinfrared": "mir",
    "swir": "swir", "shortwaveir": "swir", "shortwaveinfrared": "swir",
    "swir1": "swir1", "swir16": "swir1", "shortwaveinfrared1": "swir1",
    "swir2": "swir2", "swir22": "swir2", "shortwaveinfrared2": "swir2",
    "pan": "pan", "panchromatic": "pan",
    "tir": "tir", "thermal": "tir", "thermalinfrared": "tir", "lwir": "tir",
    "tir1": "tir1", "thermal1": "tir1", "thermalinfrared1": "tir1", "lwir11": "tir1",
    "tir2": "tir2", "thermal2": "tir2", "thermalinfrared2": "tir2", "lwir12": "tir2",
    "vv": "vv", "vh": "vh", "hh": "hh", "hv": "hv",
    "elevation": "elevation", "dem": "elevation", "dsm": "elevation", "dtm": "elevation",
    "alpha": "alpha",
}  # fmt: skip
# Only as a whole name.
_SHORT = {"r": "red", "g": "green", "b": "blue", "n": "nir", "ir": "nir", "infrared": "nir"}
_LONGEST = 4  # words of an alias

_SENTINEL2 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge1", "6": "rededge2",
    "7": "rededge3", "8": "nir", "8a": "nir08", "9": "nir09", "10": "cirrus", "11": "swir1", "12": "swir2",
}  # fmt: skip
_LANDSAT8 = {
    "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir", "6": "swir1", "7": "swir2",
    "8": "pan", "9": "cirrus", "10": "tir1", "11": "tir2",
}  # fmt: skip
_LANDSAT7 = {
    "1": "blue", "2": "green", "3": "red", "4": "nir", "5": "swir1", "6": "tir", "7": "swir2", "8": "pan",
}  # fmt: skip
# Where only some bands are there, these mean the same in Sentinel-2 products and in HLS of both satellites.
_PADDED = {"1": "coastal", "2": "blue", "3": "green", "4": "red"}

_CODE = re.compile(r"b(0?)(\d{1,2})(a?)")


def canonical_role(role: str) -> str:
    """The vocabulary's word for a role, such as ``swir1`` for ``SWIR 16``.

    Args:
        role: As a model card has it.

    Returns:
        The canonical role; the words of the role itself, in lower case, where it is none of ours.
    """
    joined = "".join(_words(role))
    return _SHORT.get(joined) or _ALIASES.get(joined) or joined


def accepted_roles(role: str) -> tuple[str, ...]:
    """The canonical role, then those a band may have instead."""
    return (role, *_CLOSE.get(role, ()))


def wavelength_of(role: str) -> float | None:
    """Centre wavelength of a canonical role in nanometres; None where it has none."""
    for candidate in accepted_roles(role):
        if candidate in WAVELENGTHS:
            return WAVELENGTHS[candidate]
    return None


def tolerance(wavelength_nm: float) -> float:
    """How far from a wavelength, in nanometres, a band may lie and still stand for it."""
    return max(NEAREST_TOLERANCE, RELATIVE_TOLERANCE * wavelength_nm)


def role_at(wavelength_nm: float) -> str:
    """The role nearest to a wavelength; empty where none is near."""
    role, centre = min(WAVELENGTHS.items(), key=lambda item: abs(item[1] - wavelength_nm))
    return role if abs(centre - wavelength_nm) <= tolerance(centre) else ""


def roles_of_names(names: Sequence[str], product: str = "") -> tuple[str, ...]:
    """The roles that names tell; a name's own words before a band code such as ``B04``.

    Codes mean different bands to different satellites (``B4`` is red of Sentinel-2 and
    Landsat 8, near infrared of Landsat 7). They count only where the codes of all bands
    together, or the product's name, leave one meaning.

    Args:
        names: The bands' descriptions.
        product: The file's name.

    Returns:
        One canonical role a name, empty where none is told.
    """
    words = [_words(name) for name in names]
    codes = _codes(words, product)
    return tuple(_role_of_words(own) or code for own, code in zip(words, codes, strict=True))


def is_band_code(name: str) -> bool:
    """Whether a name is a band code and nothing else, such as ``B4``: one band for each satellite."""
    return _CODE.fullmatch(name.strip().lower()) is not None


def _role_of_words(words: list[str]) -> str:
    if len(words) == 1 and words[0] in _SHORT:
        return _SHORT[words[0]]
    found: set[str] = set()
    start = 0
    while start < len(words):
        for length in range(min(_LONGEST, len(words) - start), 0, -1):
            role = _ALIASES.get("".join(words[start : start + length]))
            if role is not None:
                found.add(role)
                start += length
                break
        else:
            start += 1
    return found.pop() if len(found) == 1 else ""  # "red minus nir" is neither


def _codes(words: list[list[str]], product: str) -> list[str]:
    """Role of each name by its band code, empty without one or where the satellite is in doubt."""
    found = []
    padded = False
    for own in words:
        matches = [match for word in own if (match := _CODE.fullmatch(word))]
        if len(matches) != 1:
            found.append("")
            continue
        padded |= bool(matches[0][1])
        found.append(str(int(matches[0][2])) + matches[0][3])
    table = _table({code for code in found if code}, words, padded, product)
    return [table.get(code, "") for code in found]


def _table(codes: set[str], words: list[list[str]], padded: bool, product: str) -> dict[str, str]:
    table = _likely_table(codes, words, padded, product)
    return table if codes <= table.keys() or table is _PADDED else {}  # ASTER has a B12, and a B14


def _likely_table(codes: set[str], words: list[list[str]], padded: bool, product: str) -> dict[str, str]:
    everywhere = {word for own in words for word in own} | set(_words(product)[:1])
    if everywhere & {"lc08", "lc09"}:
        return _LANDSAT8
    if everywhere & {"le07", "lt05", "lt04"}:
        return _LANDSAT7
    if everywhere & {"s2a", "s2b", "s2c", "msil1c", "msil2a"} or codes & {"8a", "12"}:
        return _SENTINEL2
    if "8" in codes and "5" not in codes:  # 10 m bands; Landsat's panchromatic B8 is on a grid of its own
        return _SENTINEL2
    if padded:
        return _PADDED
    if "10" in codes:
        return _LANDSAT8
    return {}


def _words(text: str) -> list[str]:
    """Words in lower case; letters and digits stay together."""
    return [word for word in re.split(r"[^0-9a-z]+", text[:256].lower()) if word]
