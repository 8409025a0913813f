"""Models as the daemon's summaries and the cards on disk describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qgis.core import QgsSettings

from rest_qgis.processing.errors import ModelError

MODELS_SETTING = "rest_qgis/models"  # ids the daemon listed last
DEFAULT_MODEL = "kitsap-buildings"  # comes with the backend
_CARD_LIMIT = 1024 * 1024  # bytes


@dataclass(frozen=True)
class ModelClass:
    """One class: its id in the map (0-254), its name, its colour ``#rrggbb``."""

    id: int
    name: str
    color: str


@dataclass(frozen=True)
class Model:
    """What a user wants to know of a model before choosing it.

    Attributes:
        id: Its id, or the path of its card.
        name: Its name.
        bands: Names of the bands it reads, in order.
        classes: Its classes.
        resolution: Expected, smallest and largest ground resolution in metres, where known.
        licence: Licence of the weights.
        good_for: What it is good for, in a sentence.
        limits: What it is not good for.
        score: The card's ``score`` as it is, empty where untested.
    """

    id: str
    name: str
    bands: tuple[str, ...]
    classes: tuple[ModelClass, ...]
    resolution: tuple[float, float, float] | None = None
    licence: str = ""
    good_for: str = ""
    limits: str = ""
    score: Mapping[str, Any] = field(default_factory=dict)

    @property
    def short_name(self) -> str:
        """The id, of a card by its path the file's name: short enough for a list of layers."""
        return Path(self.id).stem if self.id.endswith(".json") else self.id

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> Model:
        """Read a summary of the daemon, or a card, which has the same fields.

        Raises:
            ModelError: A field is missing or of another kind.
        """
        try:
            resolution = summary.get("ground_resolution_m")
            return cls(
                id=str(summary["id"]),
                name=str(summary.get("name") or summary["id"]),
                bands=tuple(
                    str(band["name"] if isinstance(band, Mapping) else band) for band in summary["bands"]
                ),
                classes=tuple(
                    ModelClass(int(entry["id"]), str(entry["name"]), str(entry["color"]))
                    for entry in summary["classes"]
                ),
                resolution=resolution
                and tuple(float(resolution[key]) for key in ("expected", "minimum", "maximum")),
                licence=str(summary.get("licence") or ""),
                good_for=str(summary.get("good_for") or ""),
                limits=str(summary.get("limits") or ""),
                score=summary.get("score") or {},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            message = f"The model's description does not make sense: {error!r}."
            raise ModelError("E_CARD_INVALID", message) from error


def choose_model(name: str, summaries: Sequence[Mapping[str, Any]]) -> Model:
    """Find a model among those the daemon listed, or read its card.

    Args:
        name: A model id, or the path of a card (``.json``).
        summaries: What the daemon listed.

    Raises:
        ModelError: There is no such model, or its card cannot be read.
    """
    for summary in summaries:
        if summary.get("id") == name:
            return Model.from_summary(summary)
    if not name.endswith(".json"):
        known = ", ".join(str(summary.get("id")) for summary in summaries)
        message = f"There is no model “{name}”. Installed: {known}. Or give the path of a model card."
        raise ModelError("E_MODEL_UNKNOWN", message)
    try:
        with Path(name).open("rb") as file:
            content = file.read(_CARD_LIMIT + 1)
        if len(content) > _CARD_LIMIT:
            raise ModelError("E_CARD_INVALID", f"{name} is too large to be a model card.")
        card = json.loads(content)
    except OSError as error:
        message = f"The model card {name} cannot be read: {error.strerror or error}."
        raise ModelError("E_CARD_MISSING", message) from error
    except ValueError as error:
        raise ModelError("E_CARD_INVALID", f"The model card {name} is not valid JSON: {error}.") from error
    if not isinstance(card, dict):
        raise ModelError("E_CARD_INVALID", f"{name} is not a model card.")
    return Model.from_summary({**card, "id": str(Path(name).absolute())})


def remembered_models() -> list[str]:
    """Return the model ids seen last, the bundled one first; asks nobody."""
    seen = QgsSettings().value(MODELS_SETTING, [], type=list) or []
    return [DEFAULT_MODEL, *(str(name) for name in seen if name != DEFAULT_MODEL)]


def remember_models(summaries: Sequence[dict[str, Any]]) -> None:
    """Keep the ids for the next start of QGIS."""
    QgsSettings().setValue(MODELS_SETTING, [str(summary.get("id")) for summary in summaries])
