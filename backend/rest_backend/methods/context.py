"""Context: which part of the grid the network must be run on, so that a part of it comes out right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from rest_backend.engine import Plan, SceneProgram
from rest_backend.methods.grid import RunGrid
from rest_backend.methods.request import ContextKind, Window
from rest_backend.models.card import ModelCard
from rest_backend.models.network import minimum_size, required_multiple
from rest_backend.models.weights import load_model
from rest_backend.models.zoo import InstalledModel

MARGIN = 256  # pixels around a nearby window, where the network looks at everything
_PROGRAMS = 3  # captures kept: a whole scene's with its last part, a preview's, the one that measures speed
_LARGEST_KEPT = 400_000_000  # bytes of weights beyond which a capture is not kept


@dataclass(frozen=True)
class Context:
    """What the network is run on for a window.

    Attributes:
        program: The network captured at that size.
        window: Column, row, width, height in pixels of the padded run grid.
        exact: Whether the window's classes are those of the whole scene's run.
    """

    program: SceneProgram
    window: Window
    exact: bool


def choose_context(
    model: InstalledModel, grid: RunGrid, wanted: Window, kind: ContextKind, check: Callable[[], None]
) -> Context:
    """Find what must be read for a window and capture the network for it.

    Args:
        model: The model.
        grid: The grid the network runs on.
        wanted: Column, row, width, height of the run pixels whose classes are wanted.
        kind: ``scene``: as much as the network looks at; ``nearby``: the same where that is
            bounded, else a margin.
        check: Called between the long steps; may raise to stop.

    Raises:
        InputError: The model's weights cannot be used, or its network not be captured.
    """
    height, width = padded_size(model.card, grid.height, grid.width)
    everything = (0, 0, width, height)
    whole = captured(model, height, width)
    if wanted == (0, 0, grid.width, grid.height):
        return Context(whole, everything, exact=True)
    check()
    if kind == "nearby":
        wanted = _steadied(wanted, required_multiple(model.card.architecture), width, height)
    needed = whole.needed_window(wanted)
    if needed is not None:
        return Context(whole.part(needed[3], needed[2]), needed, exact=True)
    if kind == "scene":
        return Context(whole, everything, exact=True)
    near = _with_margin(model.card, wanted, width, height)
    return Context(captured(model, near[3], near[2]), near, exact=near == everything)


def context_notes(context: Context, plan: Plan) -> list[str]:
    """What the user should know about how a window is computed."""
    notes = []
    if not context.exact:
        notes.append(
            "The network looks at the whole scene, but only the surroundings were read: the classes differ"
            " a little from those of the whole scene's run."
        )
    if plan.fallback_ops:
        notes.append("Computed on all rows at once, for want of a row rule: " + ", ".join(plan.fallback_ops))
    return notes


def padded_size(card: ModelCard, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels the network is run at."""
    multiple, smallest = required_multiple(card.architecture), minimum_size(card.architecture)
    padded_height, padded_width = (max(smallest, -(-size // multiple) * multiple) for size in (height, width))
    return padded_height, padded_width


_kept: OrderedDict[tuple[str, str, int, int], SceneProgram] = OrderedDict()


def captured(model: InstalledModel, height: int, width: int) -> SceneProgram:
    """The model's network captured at a padded size; the last captures of one model are remembered.

    Raises:
        InputError: As :func:`rest_backend.models.weights.load_model` and ``SceneProgram.capture``.
    """
    key = (str(model.card_path), model.card.sha256, height, width)
    for other in [other for other in _kept if other[:2] != key[:2]]:
        del _kept[other]
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    network = load_model(model, height, width)
    program = SceneProgram.capture(network, len(model.card.bands), height, width)
    if sum(value.numel() * value.element_size() for value in network.parameters()) <= _LARGEST_KEPT:
        _kept[key] = program
        while len(_kept) > _PROGRAMS:
            _kept.popitem(last=False)
    return program


def forget_captures() -> bool:
    """Keep no capture any more; whether there was any."""
    kept = bool(_kept)
    _kept.clear()
    return kept


def _steadied(wanted: Window, multiple: int, width: int, height: int) -> Window:
    """A window around the wanted one, of a size that does not change with its place.

    What must be read begins and ends at steps of the network; without this, windows of one size
    would be captured anew wherever they lie otherwise on these steps.
    """
    column, row, columns, rows = wanted
    left, right = _stretched(column, column + columns, multiple, width)
    top, bottom = _stretched(row, row + rows, multiple, height)
    return left, top, right - left, bottom - top


def _stretched(start: int, stop: int, multiple: int, size: int) -> tuple[int, int]:
    low = start // multiple * multiple
    return low, min(size, low + (-(-(stop - start) // multiple) + 1) * multiple)


def _with_margin(card: ModelCard, wanted: Window, width: int, height: int) -> Window:
    """A window and :data:`MARGIN` around it, on the network's multiple, inside the padded grid."""
    column, row, columns, rows = wanted
    multiple, smallest = required_multiple(card.architecture), minimum_size(card.architecture)
    left, right = _widened(column, column + columns, width, multiple, smallest)
    top, bottom = _widened(row, row + rows, height, multiple, smallest)
    return left, top, right - left, bottom - top


def _widened(start: int, stop: int, size: int, multiple: int, smallest: int) -> tuple[int, int]:
    low = max(0, start - MARGIN) // multiple * multiple
    high = min(size, max(-(-(stop + MARGIN) // multiple) * multiple, low + smallest))
    return min(low, high - smallest), high
