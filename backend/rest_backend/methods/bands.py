"""Which band of a scene is which input of a model, and how sure that is.

What the file itself tells is sure, in this order: a band's name, its wavelength, its
colour. Where it tells nothing, the usual order of a common sensor with as many bands is
assumed (:data:`ORDERS`): allowed, but said, because nothing in the file confirms it.
Otherwise the band is missing, and the user must choose it. The first bands of a file are
never taken for no other reason than that they are the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rest_backend.errors import InputError
from rest_backend.models.card import Band, ModelCard
from rest_backend.rasters.bands import SceneBand
from rest_backend.rasters.roles import accepted_roles, canonical_role, is_band_code, tolerance, wavelength_of

How = Literal["given", "name", "wavelength", "colour", "order", "missing"]


@dataclass(frozen=True)
class BandMatch:
    """One input of a model and the scene's band for it.

    Attributes:
        model: The input's name in the model's card.
        role: Its role there.
        band: 1-based band of the scene, None where none was found.
        name: That band's name, empty without one.
        how: What the match rests on.
        sure: False for ``order`` and ``missing``.
        reason: A sentence for the user.
    """

    model: str
    role: str
    band: int | None
    name: str
    how: How
    sure: bool
    reason: str


@dataclass(frozen=True)
class SensorOrder:
    """The order in which images of a kind usually hold their bands.

    Attributes:
        dtypes: Stored types that such images have.
        roles: One a band.
        images: What they are called, for the user.
    """

    dtypes: frozenset[str]
    roles: tuple[str, ...]
    images: str


_BYTE = frozenset({"uint8"})
_WORDS = frozenset({"uint16", "int16"})
_DEEP = frozenset({"uint16", "int16", "float32", "float64"})
_LANDSAT = ("blue", "green", "red", "nir", "swir1", "swir2")
_SENTINEL = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08")

# By number of bands (without alpha) and stored type. Sources:
#  4 x 8 bit   USDA, NAIP four-band ortho imagery: red, green, blue, near infrared.
#  4 x 16 bit  Planet, PlanetScope product specification, four-band analytic; so do QuickBird and IKONOS.
#  6           USGS, Landsat 4-7 Collection 2 Level 2 guide: bands 1-5 and 7; Landsat 8 stacks of bands 2-7.
#  7, 11       USGS, Landsat 8-9 Collection 2 guides: surface reflectance bands 1-7; Level-1 bands 1-11.
#  10, 12, 13  ESA, Sentinel-2 products specification: the 10 and 20 m bands; Level-2A (no band 10); Level-1C.
# Not here, because two sensors disagree: 5 bands (RapidEye, MicaSense), 8 bands (WorldView-2, PlanetScope).
ORDERS = (
    SensorOrder(_BYTE, ("red", "green", "blue"), "3-band 8-bit images"),
    SensorOrder(_BYTE, ("red", "green", "blue", "nir"), "4-band 8-bit aerial images"),
    SensorOrder(_WORDS, ("blue", "green", "red", "nir"), "4-band 16-bit PlanetScope or QuickBird images"),
    SensorOrder(_BYTE | _DEEP, _LANDSAT, "6-band Landsat images"),
    SensorOrder(_DEEP, ("coastal", *_LANDSAT), "7-band Landsat 8 and 9 images"),
    SensorOrder(
        _DEEP,
        ("coastal", *_LANDSAT, "pan", "cirrus", "tir1", "tir2"),
        "11-band Landsat 8 and 9 images",
    ),
    SensorOrder(_DEEP, (*_SENTINEL, "swir1", "swir2"), "10-band Sentinel-2 images"),
    SensorOrder(_DEEP, ("coastal", *_SENTINEL, "nir09", "swir1", "swir2"), "12-band Sentinel-2 images"),
    SensorOrder(
        _DEEP,
        ("coastal", *_SENTINEL, "nir09", "cirrus", "swir1", "swir2"),
        "13-band Sentinel-2 images",
    ),
)


def match_bands(
    card: ModelCard, scene_bands: Sequence[SceneBand], given: Sequence[int] = ()
) -> tuple[BandMatch, ...]:
    """Find the scene's band for each input of a model.

    Args:
        card: The model's card.
        scene_bands: The scene's bands, as :func:`~rest_backend.rasters.bands.scene_bands` reads them.
        given: 1-based bands in the model's order, as the user chose them; empty lets the bands be matched.

    Returns:
        One match an input, in the model's order; no band of the scene twice.

    Raises:
        InputError: ``E_BANDS_COUNT``, ``E_SCENE_BANDS`` or ``E_BANDS_TWICE``, for ``given`` only.
    """
    if given:
        return _given(card, scene_bands, given)
    return _Matching(card, scene_bands).result()


def _given(card: ModelCard, scene_bands: Sequence[SceneBand], given: Sequence[int]) -> tuple[BandMatch, ...]:
    if len(given) != len(card.bands):
        names = ", ".join(band.name for band in card.bands)
        raise InputError(
            "E_BANDS_COUNT",
            f"{_bands(len(given))} given, but the model {card.id} reads {len(card.bands)}: {names}.",
        )
    by_number = {band.number: band for band in scene_bands}
    for number in given:
        if number not in by_number:
            raise InputError(
                "E_SCENE_BANDS", f"Band {number} was chosen, but the scene has {_bands(len(scene_bands))}."
            )
        if list(given).count(number) > 1:
            raise InputError(
                "E_BANDS_TWICE",
                f"Band {number} was chosen more than once: each of the model's bands needs one of its own.",
            )
    return tuple(
        _match(band, by_number[number], "given", f"Band {number} was chosen by hand.")
        for band, number in zip(card.bands, given, strict=True)
    )


class _Matching:
    """The rounds of a matching: what is sure first, a sensor's order last."""

    def __init__(self, card: ModelCard, scene_bands: Sequence[SceneBand]) -> None:
        self._wanted = card.bands
        self._bands = [band for band in scene_bands if band.role != "alpha"]
        self._found: dict[int, BandMatch] = {}
        self._roles = [canonical_role(band.role) for band in card.bands]

    def result(self) -> tuple[BandMatch, ...]:
        self._by_own_name()
        self._by_role("name")
        self._by_wavelength()
        self._by_role("colour")
        self._by_order()
        return tuple(
            self._found.get(index) or self._missing(index, band) for index, band in enumerate(self._wanted)
        )

    def _by_own_name(self) -> None:
        """A band that is called exactly as in the model, as those of models trained on such scenes are."""
        for index, wanted in self._open():
            same = [
                band
                for band in self._free()
                if band.name.strip().casefold() == wanted.name.strip().casefold()
                and not re.fullmatch(r"(?i)band \d+", band.name)  # stands for no name at all
                and not self._contradicts(band, self._roles[index])
            ]
            if len(same) == 1:
                self._take(index, same[0], "name", f'Band {same[0].number} is named "{same[0].name}".')

    def _contradicts(self, band: SceneBand, role: str) -> bool:
        if not band.role:
            return is_band_code(band.name)  # B4 of one satellite is not B4 of another
        return wavelength_of(role) is not None and band.role not in accepted_roles(role)

    def _by_role(self, source: Literal["name", "colour"]) -> None:
        # Exact roles of all inputs first: "nir" may take a narrow near infrared only if nobody wants that.
        for rank in range(4):
            for index, wanted in self._open():
                accepted = accepted_roles(self._roles[index])[rank : rank + 1]
                of_role = [band for band in self._bands if band.role in accepted and band.role_from == source]
                of_role = _nearest_of(of_role, wanted)
                if len(of_role) != 1 or of_role[0] not in self._free():
                    continue
                band = of_role[0]
                reason = (
                    f'Band {band.number} is named "{band.name}".'
                    if source == "name"
                    else f"The file marks band {band.number} as {band.role}."
                )
                self._take(index, band, source, reason)

    def _by_wavelength(self) -> None:
        pairs = []
        for index, wanted in self._open():
            target = wanted.wavelength_nm or wavelength_of(self._roles[index])
            if target is None:
                continue
            for band in self._free():
                if band.wavelength_nm is None or band.bad:
                    continue
                distance = abs(band.wavelength_nm - target)
                if distance <= tolerance(target):
                    pairs.append((distance, band.number, index, target, band))
        for _, _, index, target, band in sorted(pairs, key=lambda pair: pair[:3]):
            if index not in self._found and band in self._free():
                reason = (
                    f"Band {band.number} lies at {band.wavelength_nm:.0f} nm, the nearest to {target:.0f} nm."
                )
                self._take(index, band, "wavelength", reason)

    def _by_order(self) -> None:
        if len(self._bands) == len(self._wanted) == 1 and not self._bands[0].role:
            for index, _ in self._open():
                self._take(
                    index, self._bands[0], "order", "It is the only band, and the file does not name it."
                )
        for order in ORDERS:
            if not self._fits(order):
                continue
            for index, _ in self._open():
                for role in accepted_roles(self._roles[index]):
                    band = self._bands[order.roles.index(role)] if role in order.roles else None
                    if band is not None and band in self._free():
                        reason = (
                            f"The file does not say what band {band.number} shows: in {order.images} it is "
                            f"{role}."
                        )
                        self._take(index, band, "order", reason)
                        break

    def _fits(self, order: SensorOrder) -> bool:
        """Whether number, types and what is known of the bands agree with an order."""
        if len(order.roles) <= 4 and any(is_band_code(band.name) for band in self._bands):
            return False  # a choice of a satellite's bands, in an order of its own
        return (
            len(order.roles) == len(self._bands)
            and all(band.dtype in order.dtypes for band in self._bands)
            and all(band.role in ("", role) for band, role in zip(self._bands, order.roles, strict=True))
            and all(
                band.wavelength_nm is None
                or (centre := wavelength_of(role)) is None
                or abs(band.wavelength_nm - centre) <= tolerance(centre)
                for band, role in zip(self._bands, order.roles, strict=True)
            )
        )

    def _missing(self, index: int, wanted: Band) -> BandMatch:
        role = self._roles[index]
        alike = [band.number for band in self._bands if band.role == role and band.role_from != "wavelength"]
        if len(self._bands) < len(self._wanted):
            reason = (
                f"The scene has {_bands(len(self._bands))} of data, and the model reads {len(self._wanted)}."
            )
        elif len(alike) > 1:
            reason = f"Bands {', '.join(map(str, alike))} are all {wanted.role}: choose one."
        else:
            reason = f"Nothing in the file says which band is {wanted.role}: choose it."
        return BandMatch(wanted.name, wanted.role, None, "", "missing", False, reason)

    def _open(self) -> list[tuple[int, Band]]:
        return [(index, band) for index, band in enumerate(self._wanted) if index not in self._found]

    def _free(self) -> list[SceneBand]:
        used = {match.band for match in self._found.values()}
        return [band for band in self._bands if band.number not in used]

    def _take(self, index: int, band: SceneBand, how: How, reason: str) -> None:
        self._found[index] = _match(self._wanted[index], band, how, reason)


def _nearest_of(bands: list[SceneBand], wanted: Band) -> list[SceneBand]:
    """The one band nearest to the wanted wavelength, where several bands have wavelengths."""
    target = wanted.wavelength_nm or wavelength_of(canonical_role(wanted.role))
    usable = [band for band in bands if not band.bad]
    if len(usable) < 2 or target is None or any(band.wavelength_nm is None for band in usable):
        return usable
    return [min(usable, key=lambda band: abs((band.wavelength_nm or 0.0) - target))]


def _match(wanted: Band, band: SceneBand, how: How, reason: str) -> BandMatch:
    return BandMatch(wanted.name, wanted.role, band.number, band.name, how, how != "order", reason)


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"
