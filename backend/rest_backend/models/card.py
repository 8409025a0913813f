"""Model cards: the JSON file beside a ``.safetensors`` file that says what the weights are.

A card names the network (encoder, decoder, parameters), the bands it reads, the ground
resolution it was made for, how a scene is normalised, its classes, where it comes from
and how good it was on data it had not seen. ``kitsap-buildings.json`` describes
``kitsap-buildings.safetensors`` in the same folder. This module imports no torch.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from rest_backend.errors import InputError

CARD_LIMIT = 1024 * 1024  # bytes of a card file
BAND_LIMIT = 1024
NODATA_ID = 255  # of every class map: never a class

Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._\-]{0,62}$")]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Dimension = Annotated[int, msgspec.Meta(ge=-65536, le=65536)]
Dimensions = Annotated[list[Dimension], msgspec.Meta(max_length=16)]
Parameter = Dimension | float | bool | ShortText | Dimensions | None


class Architecture(msgspec.Struct, kw_only=True, frozen=True):
    """The network, by the names its libraries give it.

    Attributes:
        encoder: ``tu-NAME`` for an encoder of timm, ``mit_b0`` to ``mit_b5`` for smp's own.
        decoder: A decoder of segmentation_models_pytorch: ``unet``, ``fpn``, ``segformer`` ...
        parameters: Further keyword arguments of the decoder, such as ``decoder_channels``.
    """

    encoder: ShortText
    decoder: ShortText
    parameters: dict[str, Parameter] = {}


class Band(msgspec.Struct, kw_only=True, frozen=True):
    """One input band, in the order the network reads them.

    Attributes:
        name: Such as ``red``.
        role: What the band shows, for matching it to a scene: ``red``, ``nir``, ``vv`` ...
        wavelength_nm: Centre wavelength in nanometres, where that means something.
        scale: A stored value times this is the value the network was trained on, before normalisation.
    """

    name: ShortText
    role: ShortText
    wavelength_nm: Positive | None = None
    scale: Positive = 1.0


class GroundResolution(msgspec.Struct, kw_only=True, frozen=True):
    """Metres on the ground per pixel: what the network expects and what it still copes with."""

    expected: Positive
    minimum: Positive
    maximum: Positive


class Normalisation(msgspec.Struct, kw_only=True, frozen=True):
    """How band values become the network's input: ``(value * scale - mean) / std``.

    Attributes:
        method: ``scene`` takes mean and standard deviation of each band from the valid pixels of
            the scene itself, ``fixed`` takes those given here.
        mean: One value a band for ``fixed``, in scaled units; empty for ``scene``.
        std: Likewise.
    """

    method: Literal["scene", "fixed"]
    mean: Annotated[list[float], msgspec.Meta(max_length=BAND_LIMIT)] = []
    std: Annotated[list[Positive], msgspec.Meta(max_length=BAND_LIMIT)] = []


class ClassEntry(msgspec.Struct, kw_only=True, frozen=True):
    """One class: ``id`` is the value in the class map, ``color`` is ``#rrggbb``.

    The entries follow the network's output channels.
    """

    id: int
    name: ShortText
    color: Annotated[str, msgspec.Meta(pattern=r"^#[0-9a-fA-F]{6}$")]


class Training(msgspec.Struct, kw_only=True, frozen=True):
    """Where the weights come from."""

    data: Text
    data_licence: Text = ""
    method: Text = ""
    initial_weights: Text = ""
    script: Text = ""
    pixels: Count = 0


class ClassScore(msgspec.Struct, kw_only=True, frozen=True):
    """Scores of one class on the test pixels; None where its denominator is 0."""

    id: int
    iou: Share | None
    precision: Share | None
    recall: Share | None
    pixels: Count


class Score(msgspec.Struct, kw_only=True, frozen=True):
    """How the model did on pixels it was not trained on.

    Attributes:
        data: What the pixels are.
        scene: File name of the bundled scene they lie in, empty when it is not shipped.
        window: Column, row, width, height of the test block in that scene, in pixels.
        labels: File name of the block's shipped labels, empty when they are not shipped.
        pixels: Number of pixels scored.
        confusion: Pixels by labelled class (row) and predicted class (column), in class order.
        classes: One entry a class.
        secondary: Further figures, each with its meaning in its name.
        note: What a reader must know to judge the figures.
    """

    data: Text
    pixels: Count
    classes: Annotated[list[ClassScore], msgspec.Meta(max_length=NODATA_ID)]
    confusion: Annotated[list[list[Count]], msgspec.Meta(max_length=NODATA_ID)]
    scene: Text = ""
    window: tuple[Count, Count, Count, Count] | None = None
    labels: Text = ""
    secondary: dict[str, float] = {}
    note: Text = ""


class ModelCard(msgspec.Struct, kw_only=True, frozen=True):
    """Everything :func:`read_card` has checked about a model."""

    format: Literal[1]
    id: Identifier
    name: ShortText
    architecture: Architecture
    bands: Annotated[list[Band], msgspec.Meta(min_length=1, max_length=BAND_LIMIT)]
    ground_resolution_m: GroundResolution
    normalisation: Normalisation
    classes: Annotated[list[ClassEntry], msgspec.Meta(min_length=2, max_length=65536)]
    licence: ShortText
    sha256: Sha256
    good_for: Text = ""
    limits: Text = ""
    training: Training | None = None
    score: Score | None = None


def read_card(path: Path) -> ModelCard:
    """Read and check a model card.

    Args:
        path: The card's JSON file.

    Returns:
        The card; whether its weights are there and fit is checked when they are loaded.

    Raises:
        InputError: ``E_CARD_MISSING`` (no such file), ``E_CARD_INVALID`` (not a card: the sentence
            names the field), ``E_CARD_CLASSES``, ``E_CARD_BANDS``, ``E_CARD_NORMALISATION`` or
            ``E_CARD_RESOLUTION`` (fields that contradict each other).
    """
    path = Path(path)
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for ever
            raise InputError("E_CARD_INVALID", f"{path} is a pipe, so it is no model card.")
        with path.open("rb") as file:
            content = file.read(CARD_LIMIT + 1)
    except OSError as error:
        raise InputError(
            "E_CARD_MISSING", f"The model card {path} cannot be read: {error.strerror or error}."
        ) from error
    if len(content) > CARD_LIMIT:
        raise InputError("E_CARD_INVALID", f"{path} is no model card: it has more than {CARD_LIMIT} bytes.")
    try:
        card = msgspec.json.decode(content, type=ModelCard)
    except msgspec.ValidationError as error:
        message = f"The model card {path} does not fit: {_field_sentence(error)}"
        raise InputError("E_CARD_INVALID", message) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("E_CARD_INVALID", f"The model card {path} is not valid JSON: {error}.") from error
    _check_classes(card, path)
    _check_bands(card, path)
    return card


def weights_path(card_path: Path) -> Path:
    """The safetensors file a card describes: the same name beside it."""
    return Path(card_path).with_suffix(".safetensors")


def _field_sentence(error: msgspec.ValidationError) -> str:
    """The library says ``Expected `int` - at `$.classes[0].id```; a reader wants the field first."""
    problem, _, place = str(error).partition(" - at `")
    field = place.rstrip("`").removeprefix("$").removeprefix(".")
    return f"field {field}: {problem}." if field else f"{problem}."


def _check_classes(card: ModelCard, path: Path) -> None:
    seen: dict[int, str] = {}
    for index, entry in enumerate(card.classes):
        if entry.id == NODATA_ID:
            raise InputError(
                "E_CARD_CLASSES",
                f"The model card {path} gives class {entry.name!r} the id {NODATA_ID}, which class maps "
                "keep for pixels without data. Use 0 to 254.",
            )
        if not 0 <= entry.id < NODATA_ID:
            raise InputError(
                "E_CARD_CLASSES",
                f"The model card {path} has the id {entry.id} in classes[{index}]; ids are 0 to 254.",
            )
        if entry.id in seen:
            raise InputError(
                "E_CARD_CLASSES",
                f"The model card {path} gives the id {entry.id} twice: to {seen[entry.id]!r} and "
                f"{entry.name!r}.",
            )
        if entry.name in seen.values():
            raise InputError("E_CARD_CLASSES", f"The model card {path} has two classes named {entry.name!r}.")
        seen[entry.id] = entry.name


def _check_bands(card: ModelCard, path: Path) -> None:
    names = [band.name for band in card.bands]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError("E_CARD_BANDS", f"The model card {path} has two bands named {repeated[0]!r}.")
    for field in ("mean", "std"):
        values = getattr(card.normalisation, field)
        wanted = len(names) if card.normalisation.method == "fixed" else 0
        if len(values) != wanted:
            raise InputError(
                "E_CARD_NORMALISATION",
                f"The model card {path} has {len(values)} values in normalisation.{field}; method "
                f"{card.normalisation.method!r} with {len(names)} bands needs {wanted}.",
            )
    resolution = card.ground_resolution_m
    if not resolution.minimum <= resolution.expected <= resolution.maximum:
        raise InputError(
            "E_CARD_RESOLUTION",
            f"In the model card {path}, ground_resolution_m must have minimum <= expected <= maximum.",
        )
