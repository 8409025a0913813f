"""Reach: the part of a scene from which some of its logits come out exactly.

Row rules say which rows an operation's output rows need. Walked backwards from the
wanted rows they give the scene rows that matter; bound once more with the columns in the
place of the rows, they give the columns. The network can then be captured at the size of
that part and run on it alone, as long as everything on the way does the same wherever it
stands (:attr:`RowRule.shift`), strided grids coincide, and the part ends where the scene
ends wherever padding was seen.

With ``r`` rows of an activation per scene row, a part that begins ``p`` rows into the scene
begins ``p r`` rows into the activation, which must be a whole number of steps for every
rule that reads it. The same holds for what is cut off below: sizes then agree with the
scene's in every remainder, so that a network pads and rounds as it does there.

All this is read off one captured size. What a network's own code works out from the size
(a fixed size to interpolate to, a factor) shows only at another: so the part is captured
too, and must be the same operations with the sizes foretold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

import torch

from rest_backend.engine.graph import Operation
from rest_backend.engine.layout import SceneLayout
from rest_backend.engine.rules import Layout, Layouts, RowRule, bind_rule

Interval = tuple[int, int]
Window = tuple[int, int, int, int]

# Rules that know rows as dimension 2 only: bound to columns by turning the operation.
_IMAGE_KINDS = frozenset(
    {
        "aten::conv2d", "aten::max_pool2d", "aten::avg_pool2d",
        "aten::upsample_nearest2d", "aten::upsample_bilinear2d",
    }
)  # fmt: skip
# Operations whose whole numbers are sizes, which follow from the shape of the result.
_SIZED_KINDS = frozenset(
    {
        "aten::upsample_nearest2d", "aten::upsample_bilinear2d",
        "aten::view", "aten::reshape", "aten::_unsafe_view", "aten::flatten",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Reach:
    """A part of a scene that gives wanted pixels, and how large every activation is in it.

    Attributes:
        window: Column, row, width, height of the part in the padded scene, in pixels.
        shapes: Shape of every activation when the part is run alone.
    """

    window: Window
    shapes: Mapping[str, tuple[int, ...]]


def reach(layout: SceneLayout, window: Window) -> Reach | None:
    """The smallest part of the padded scene that gives the pixels of a window.

    Args:
        layout: The network laid out.
        window: Column, row, width, height in pixels, inside the padded scene.

    Returns:
        The part; as wide as the scene where an operation is not known to be alike along the
        columns. None when the pixels depend on all rows: a barrier, an operation without a
        rule, or one that depends on the place or on the scene's size.
    """
    rules = _rules(layout)
    column, row, width, height = window
    rows = rules and _walk(layout, rules, 2, (row, row + height))
    if not rules or not rows:
        return None
    columns, dims = _Axis((0, layout.graph.shapes[layout.graph.input][3]), {}), layout.rows
    across = _column_rules(layout, rules)
    if across is not None:
        found = _walk(layout, across[0], 3, (column, column + width))
        columns, dims = (found, across[1]) if found else (columns, dims)
    shapes = {name: list(shape) for name, shape in layout.graph.shapes.items()}
    for name, gone in rows.gone.items():
        shapes[name][layout.rows[name].dim] -= gone
    for name, gone in columns.gone.items():
        shapes[name][dims[name].dim] -= gone
    (left, right), (top, bottom) = columns.kept, rows.kept
    part = (left, top, right - left, bottom - top)
    return Reach(part, {name: tuple(shape) for name, shape in shapes.items()})


def same_network(scene: SceneLayout, part: SceneLayout, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether two captures of a network differ in nothing but the sizes foretold.

    Args:
        scene: The network laid out for the scene.
        part: The network laid out for a part of it.
        shapes: Shapes that :func:`reach` foretold for the part.
    """
    operations, others = _operations(scene), _operations(part)
    if len(operations) != len(others):
        return False
    for operation, other in zip(operations, others, strict=True):
        if shapes[operation.name] != other.shape or not _same_operation(operation, other):
            return False
        for name in operation.operands():
            if name in scene.graph.constants and not _same_constant(
                scene.graph.constants[name], part.graph.constants[name]
            ):
                return False
    return True


def _rules(layout: SceneLayout) -> dict[str, RowRule] | None:
    """The rules of a network that is swept in one go, operands first; None: there is a barrier."""
    found: dict[str, RowRule] = {}
    for phase in layout.phases:
        for item in phase.items:
            if not isinstance(item, RowRule):
                return None
            found[item.operation.name] = item
    return None if any(phase.whole for phase in layout.phases) else found


def _operations(layout: SceneLayout) -> list[Operation]:
    return [*layout.constant, *(item.operation for phase in layout.phases for item in phase.items)]


@dataclass(frozen=True)
class _Axis:
    """Along one axis: the kept interval of the scene, and what every activation loses."""

    kept: Interval
    gone: Mapping[str, int]


def _walk(layout: SceneLayout, rules: Mapping[str, RowRule], dim: int, wanted: Interval) -> _Axis | None:
    """From wanted output rows (or columns) back to the scene's; rules come operands first."""
    scene = layout.graph.input
    sizes, ratios = {scene: layout.graph.shapes[scene][dim]}, {scene: Fraction(1)}
    step = 1  # scene rows by which a part may begin later or end earlier
    for name, rule in rules.items():
        given = {ratios.get(operand) for operand in rule.inputs}
        ratio = given.pop() if len(given) == 1 else None
        if rule.shift is None or ratio is None:
            return None
        step = lcm(step, (ratio / rule.shift[0]).denominator)
        ratios[name] = ratio * rule.shift[1] / rule.shift[0]
        sizes[name] = rule.layout.rows
    if layout.output not in sizes:
        return None
    needed = {layout.output: wanted}
    for name, rule in reversed(list(rules.items())):
        for operand, (low, high) in zip(rule.inputs, rule.source(*needed[name]), strict=True):
            if low == high:  # padding alone: the border itself is needed
                low = min(low, sizes[operand] - 1)
                high = low + 1
            before = needed.get(operand, (low, high))
            needed[operand] = min(low, before[0]), max(high, before[1])
    above = min(low / ratios[name] for name, (low, _) in needed.items())
    below = min((sizes[name] - high) / ratios[name] for name, (_, high) in needed.items())
    top, bottom = int(above // step) * step, int(below // step) * step
    gone = {name: int((top + bottom) * ratio) for name, ratio in ratios.items()}
    return _Axis((top, sizes[scene] - bottom), gone)


def _column_rules(
    layout: SceneLayout, rules: Mapping[str, RowRule]
) -> tuple[dict[str, RowRule], dict[str, Layout]] | None:
    """The network's rules bound to columns, and where the columns of every activation are."""
    shapes = layout.graph.shapes
    columns = {layout.graph.input: Layout(3, shapes[layout.graph.input][3])}
    found: dict[str, RowRule] = {}
    for rule in rules.values():
        operation = rule.operation
        if operation.kind in _IMAGE_KINDS:
            bound = _bind_turned(operation, rule, columns, shapes)
        else:
            bound = bind_rule(operation, Layouts(columns, shapes))
        if not isinstance(bound, RowRule):
            return None
        dim = 3 if operation.kind in _IMAGE_KINDS else bound.layout.dim
        found[operation.name], columns[operation.name] = bound, Layout(dim, bound.layout.rows)
    return (found, columns) if columns[layout.output].dim == 3 else None


def _bind_turned(
    operation: Operation, rule: RowRule, columns: Mapping[str, Layout], shapes: Mapping[str, tuple[int, ...]]
) -> Any:
    """The rule of an operation over images with rows and columns exchanged."""
    layouts = {name: columns[name] for name in rule.inputs}
    if any(layout.dim != 3 or len(shapes[name]) != 4 for name, layout in layouts.items()):
        return None
    turned = replace(operation, args=_turned_pairs(operation.args), shape=_turned(operation.shape))
    rows = {name: Layout(2, layout.rows) for name, layout in layouts.items()}
    return bind_rule(turned, Layouts(rows, {name: _turned(shapes[name]) for name in operation.operands()}))


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], *shape[:1:-1]) if len(shape) == 4 else shape


def _turned_pairs(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of an image operation: whatever comes as a pair is of rows and columns."""
    return tuple(
        list(value[::-1]) if isinstance(value, (list, tuple)) and len(value) == 2 else value for value in args
    )


def _same_constant(first: torch.Tensor, second: torch.Tensor) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)


def _same_operation(first: Operation, second: Operation) -> bool:
    if (first.name, first.target) != (second.name, second.target):
        return False
    one, other = ((list(each.args), dict(each.kwargs)) for each in (first, second))
    if first.kind in _SIZED_KINDS:
        return bool(_without_sizes(one) == _without_sizes(other))
    return one == other


def _without_sizes(value: Any) -> Any:
    """Nested arguments with whole numbers left out."""
    if isinstance(value, dict):
        return {key: _without_sizes(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_sizes(item) for item in value]
    return None if type(value) is int else value
