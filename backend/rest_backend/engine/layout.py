"""Lay out: which operations are swept by rows, which meet at barriers, and in which phase.

An operation whose operands are all constants is a constant. One with a row rule is
swept. A reduction runs along the sweep and gives a small whole result. Everything
else runs whole, between two phases, on stored tensors.

Reductions and whole operations are placed as early as they can be, swept
operations as late as their consumers allow: what a later phase needs is then
computed in that phase, from the smallest tensors that had to be stored.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from rest_backend.engine.graph import Operation, Ref, SceneGraph
from rest_backend.engine.rules import Layout, Layouts, Reduction, RowRule, bind_rule
from rest_backend.engine.rules.normalisation import PUBLIC_KINDS
from rest_backend.engine.rules.rowwise import Identity
from rest_backend.errors import InputError

Item = RowRule | Reduction | Operation

_BY_STRIDE = ("aten::as_strided",)  # computes another thing when its operand lies otherwise in memory


@dataclass
class Phase:
    """One sweep over the scene.

    Attributes:
        whole: Operations that run whole just before the sweep.
        items: Row rules and reductions of the sweep, operands first.
        stored: Names this sweep stores, for whole operations or later phases.
        expiring: Stored or whole tensors that no later phase reads.
    """

    whole: list[Operation] = field(default_factory=list)
    items: list[RowRule | Reduction] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    expiring: list[str] = field(default_factory=list)

    def computed(self) -> set[str]:
        """Names of what the sweep computes by rows."""
        return {item.operation.name for item in self.items if isinstance(item, RowRule)}


@dataclass
class SceneLayout:
    """A captured network laid out for the sweep.

    Attributes:
        graph: The network.
        constant: Operations that depend on constants only.
        phases: Sweeps, in order; the last one yields the output.
        rows: Layout of the scene and of every swept or stored activation.
        output: Name whose rows are the logits.
        fallback: Kinds of the operations that run whole for want of a rule.
    """

    graph: SceneGraph
    constant: list[Operation]
    phases: list[Phase]
    rows: dict[str, Layout]
    output: str
    fallback: list[str]

    def read_names(self) -> set[str]:
        """Names of everything that operations, rules and reductions of the phases read."""
        operations = [
            item if isinstance(item, Operation) else item.operation
            for phase in self.phases
            for item in (*phase.whole, *phase.items)
        ]
        return {name for operation in operations for name in operation.operands()}

    @property
    def scene_rows(self) -> int:
        """Rows of the padded scene."""
        return self.rows[self.graph.input].rows

    def row_bytes(self, name: str) -> int:
        """Bytes of one row of an activation."""
        shape = self.graph.shapes[name]
        elements = 1
        for dim, size in enumerate(shape):
            elements *= 1 if dim == self.rows[name].dim else size
        return elements * self.graph.dtypes[name].itemsize


def lay_out(graph: SceneGraph) -> SceneLayout:
    """Bind a rule to every operation and cut the network into phases."""
    constants = set(graph.constants)
    rows = {graph.input: Layout(2, graph.shapes[graph.input][2])}
    constant: list[Operation] = []
    items: list[Item] = []
    fallback: set[str] = set()
    ruleless: set[str] = set()  # whole tensors behind an operation without a rule
    for operation in _needed(graph):
        layouts = Layouts(rows, graph.shapes)
        if all(name in constants for name in operation.operands()):
            constant.append(operation)
            constants.add(operation.name)
            continue
        swept = bool(layouts.row_operands(operation))
        item = (bind_rule(operation, layouts) if swept else None) or operation
        items.append(item)
        if isinstance(item, RowRule):
            rows[operation.name] = item.layout
        elif item is operation and (swept or not ruleless.isdisjoint(operation.operands())):
            part = operation.target is operator.getitem  # of an operation with several results
            if operation.kind in _BY_STRIDE:
                raise InputError(
                    "E_CAPTURE",
                    f"The network uses {operation.kind}, which depends on how tensors lie in memory.",
                )
            fallback.update(() if part else (PUBLIC_KINDS.get(operation.kind, operation.kind),))
            ruleless.add(operation.name)
            layout = _rows_of_whole(operation, rows) if swept or part else None
            if layout is not None:
                rows[operation.name] = layout
    output = graph.output
    made_by = {item_name(item): item for item in items}.get(output)
    if not isinstance(made_by, RowRule) or rows[output].dim != 2:
        if isinstance(made_by, RowRule):  # its rows are not the scene's: turn it as a whole
            fallback.add(made_by.operation.kind)
            items.append(_whole_copy(graph))
            output = item_name(items[-1])
        items.append(_hand_out(graph, rows, output))
        output = item_name(items[-1])
    return SceneLayout(graph, constant, _phases(items, graph.input, output), rows, output, sorted(fallback))


def item_name(item: Item) -> str:
    """Name of what an item computes."""
    return item.name if isinstance(item, Operation) else item.operation.name


def item_inputs(item: Item) -> tuple[str, ...]:
    """Names an item reads by rows; for a whole operation, all its operands."""
    if isinstance(item, Operation):
        return item.operands()
    return item.inputs if isinstance(item, RowRule) else (item.input,)


def _needed(graph: SceneGraph) -> list[Operation]:
    """Operations the output depends on, in order."""
    wanted = {graph.output}
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        if operation.name in wanted:
            kept.append(operation)
            wanted.update(operation.operands())
    return kept[::-1]


def _rows_of_whole(operation: Operation, rows: dict[str, Layout]) -> Layout | None:
    """Rows by which later rules may read a result computed whole; any choice is exact."""
    shape = operation.shape
    for name in operation.operands():
        layout = rows.get(name)
        if layout and layout.dim < len(shape) and shape[layout.dim] == layout.rows > 1:
            return layout
    return Layout(2, shape[2]) if len(shape) == 4 and shape[2] > 1 else None


def _whole_copy(graph: SceneGraph) -> Operation:
    """A contiguous copy of the output, computed whole."""
    name, shape = graph.output + ".whole", graph.shapes[graph.output]
    graph.describe(name, shape, graph.dtypes[graph.output])
    return Operation(
        name, torch.ops.aten.contiguous.default, (Ref(graph.output),), {}, shape, graph.dtypes[graph.output]
    )


def _hand_out(graph: SceneGraph, rows: dict[str, Layout], source: str) -> RowRule:
    """An identity behind an output computed whole, so that its rows are handed out in a sweep."""
    shape = graph.shapes[source]
    layout = rows[source] = Layout(2, shape[2])
    name = source + ".rows"
    operation = Operation(name, torch.ops.aten.alias.default, (Ref(source),), {}, shape, graph.dtype)
    graph.describe(name, shape, graph.dtype)
    rows[name] = layout
    return Identity(operation, layout, (source,))


def _phases(items: Sequence[Item], scene: str, output: str) -> list[Phase]:
    ready = _earliest(items, scene)
    swept = {item_name(item) for item in items if isinstance(item, RowRule)}
    placed = _latest(items, ready, swept, output)
    phases = [Phase() for _ in range(ready[output] + 1)]
    for item in items:
        phase = phases[placed[item_name(item)]]
        if isinstance(item, Operation):
            phase.whole.append(item)
        else:
            phase.items.append(item)
    _mark_stored(phases, {name: placed[name] for name in swept} | {scene: 0}, scene)
    return phases


def _earliest(items: Sequence[Item], scene: str) -> dict[str, int]:
    """First phase of a swept operation; first phase that can use a reduced or whole result."""
    ready = {scene: 0}
    swept = {scene}
    for item in items:
        operands = item.operands() if isinstance(item, Operation) else item.operation.operands()
        after = 0
        for name in operands:
            if name in ready:
                meets = not isinstance(item, RowRule) and (name in swept or isinstance(item, Reduction))
                after = max(after, ready[name] + meets)
        ready[item_name(item)] = after
        if isinstance(item, RowRule):
            swept.add(item_name(item))
    return ready


def _latest(items: Sequence[Item], ready: dict[str, int], swept: set[str], output: str) -> dict[str, int]:
    """Phase of every item: swept operations wait for their first consumer."""
    placed: dict[str, int] = {output: ready[output]}
    for item in reversed(items):
        name = item_name(item)
        if isinstance(item, Reduction):
            placed[name] = ready[name] - 1
        elif isinstance(item, Operation):
            placed[name] = ready[name]
        reads = placed[name] - isinstance(item, Operation)
        for operand in item_inputs(item):
            if operand in swept:
                placed[operand] = min(placed.get(operand, reads), reads)
    return placed


def _mark_stored(phases: list[Phase], computed_in: dict[str, int], scene: str) -> None:
    """Store what a later phase or a whole operation reads, until its last reader has run.

    The scene itself is read again by later sweeps rather than stored.
    """
    last_read: dict[str, int] = {}
    stored: dict[str, None] = {}
    for number, phase in enumerate(phases):
        for operation in phase.whole:
            for name in operation.operands():
                last_read[name] = number
                if name in computed_in:
                    stored[name] = None
            last_read.setdefault(operation.name, number)
        for item in phase.items:
            for name in item.operation.operands():
                last_read[name] = number
                if name != scene and computed_in.get(name, number) < number:
                    stored[name] = None
    for name in stored:
        phases[computed_in[name]].stored.append(name)
    whole = {operation.name for phase in phases for operation in phase.whole}
    for name in (*stored, *whole):
        phases[last_read[name]].expiring.append(name)
