"""The installed models: the bundled ones, then those in the user's ``models`` folder.

A model is installed by putting its card and its weights there; nothing is registered
elsewhere. This module imports no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from rest_backend.bundled import bundled_folder
from rest_backend.errors import InputError
from rest_backend.models.card import ModelCard, read_card, weights_path

MODEL_LIMIT = 255  # cards read from one folder
_BRIEF_TEXT = 320  # characters


@dataclass(frozen=True)
class InstalledModel:
    """A model that can be asked for by its id.

    Attributes:
        id: The card's id.
        card_path: The card; the weights lie beside it.
        card: What the card says.
        bundled: Whether it came with the backend.
    """

    id: str
    card_path: Path
    card: ModelCard
    bundled: bool

    @property
    def weights_path(self) -> Path:
        """The safetensors file."""
        return weights_path(self.card_path)


@dataclass(frozen=True)
class BrokenModel:
    """A card in a models folder that cannot be used, and why.

    Attributes:
        id: The card's id, or its file name where the card itself does not read.
        card_path: The card.
        error: What is wrong with it.
    """

    id: str
    card_path: Path
    error: InputError


def list_models(home: Path | None = None) -> list[InstalledModel]:
    """The usable models, bundled ones first, then by file name.

    Args:
        home: The daemon's folder, whose ``models`` folder is read; default: ``REST_HOME``, else the
            user's data folder.
    """
    return scan_models(home)[0]


def scan_models(home: Path | None = None) -> tuple[list[InstalledModel], list[BrokenModel]]:
    """The usable models, as :func:`list_models`, and the cards that are not.

    One broken card does not hide the others, and is not passed over in silence either.

    Args:
        home: As for :func:`list_models`.
    """
    models: dict[str, InstalledModel] = {}
    broken: list[BrokenModel] = []
    for folder, bundled in ((bundled_folder("models"), True), (models_folder(home), False)):
        for path in sorted(folder.glob("*.json"))[:MODEL_LIMIT]:
            model = _read(path, bundled)
            if isinstance(model, InstalledModel) and model.id in models:
                message = (
                    f"The id {model.id!r} of {path} is taken by {models[model.id].card_path}; change it."
                )
                model = BrokenModel(model.id, path, InputError("E_MODEL_DUPLICATE", message))
            if isinstance(model, BrokenModel):
                broken.append(model)
            else:
                models[model.id] = model
    return list(models.values()), broken


def find_model(id_or_path: str | Path, home: Path | None = None) -> InstalledModel:
    """The model of an id, or of a card anywhere on disk.

    Args:
        id_or_path: A model id, or the path of a card (``.json``) or of its ``.safetensors`` file.
        home: As for :func:`list_models`.

    Raises:
        InputError: ``E_MODEL_UNKNOWN`` (the sentence lists the known ids), ``E_WEIGHTS_MISSING``, or
            what :func:`rest_backend.models.card.read_card` raises.
    """
    name = str(id_or_path)
    if name.endswith((".json", ".safetensors")):
        model = _read(Path(name).absolute().with_suffix(".json"), bundled=False)
        if isinstance(model, BrokenModel):
            raise model.error
        return model
    models, broken = scan_models(home)
    for model in models:
        if model.id == name:
            return model
    for other in broken:
        if other.id == name:
            raise other.error
    known = ", ".join(model.id for model in models) or "none"
    raise InputError(
        "E_MODEL_UNKNOWN",
        f"There is no model {name!r}. Installed: {known}. A model's id, or the path of its card, is needed.",
    )


def summary(model: InstalledModel) -> dict[str, Any]:
    """What ``rest-backend models --json`` shows of a model, in JSON types.

    Args:
        model: An installed model.

    Returns:
        ``id``, ``name``, ``bands``, ``classes``, ``score``, ``licence``, ``bundled``, ``card`` (the card's
        path), and further fields of the card by their names there.
    """
    fields = (
        "id", "name", "bands", "classes", "score", "licence", "ground_resolution_m", "normalisation",
        "architecture", "good_for", "limits", "sha256",
    )  # fmt: skip
    card: dict[str, Any] = msgspec.to_builtins(model.card)
    return {name: card[name] for name in fields} | {"bundled": model.bundled, "card": str(model.card_path)}


def brief(model: InstalledModel) -> dict[str, Any]:
    """What a person choosing a model wants to know, small enough for many to fit one message.

    Args:
        model: An installed model.

    Returns:
        ``id``, ``name``, ``bands`` (their names), ``classes``, ``ground_resolution_m``, ``licence``,
        ``good_for``, ``limits``, ``score`` (None, or all but the confusion matrix and the secondary figures),
        ``bundled`` and ``card``. Texts over 320 characters are cut and end with an ellipsis.
    """
    card = model.card
    score = card.score and {
        "data": _cut(card.score.data),
        "note": _cut(card.score.note),
        "classes": msgspec.to_builtins(card.score.classes),
        "pixels": card.score.pixels,
        "scene": card.score.scene,
        "window": card.score.window,
    }
    return {
        "id": card.id,
        "name": card.name,
        "bands": [band.name for band in card.bands],
        "classes": msgspec.to_builtins(card.classes),
        "ground_resolution_m": msgspec.to_builtins(card.ground_resolution_m),
        "licence": card.licence,
        "good_for": _cut(card.good_for),
        "limits": _cut(card.limits),
        "score": score,
        "bundled": model.bundled,
        "card": str(model.card_path),
    }


def models_folder(home: Path | None = None) -> Path:
    """Where a user's own models lie: ``models`` in the daemon's folder."""
    chosen = home or os.environ.get("REST_HOME")
    return Path(chosen or platformdirs.user_data_dir("rest-qgis", appauthor=False)) / "models"


def _cut(text: str) -> str:
    return text if len(text) <= _BRIEF_TEXT else text[: _BRIEF_TEXT - 1].rstrip() + "…"


def _read(path: Path, bundled: bool) -> InstalledModel | BrokenModel:
    try:
        card = read_card(path)
    except InputError as error:
        return BrokenModel(path.stem, path, error)
    model = InstalledModel(card.id, path, card, bundled)
    if not model.weights_path.is_file():
        message = f"The model {card.id!r} has no weights: {model.weights_path} is not there."
        return BrokenModel(card.id, path, InputError("E_WEIGHTS_MISSING", message))
    return model
