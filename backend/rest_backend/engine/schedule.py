"""Sweep on paper: every step of a phase, and the bytes it holds, from shapes alone.

A stripe of scene rows arrives; every item, operands first, computes its new rows as
far as its inputs reach; then the rows no consumer needs any more are dropped. The
same steps are later run on tensors, so that what was planned is what happens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rest_backend.engine.layout import Phase, SceneLayout, item_inputs, item_name
from rest_backend.engine.rules import Reduction, RowRule

_CATCH_UP = 2  # rows an item may gain on the stripes while the scene is drained


@dataclass(frozen=True, slots=True)  # a tall scene has a hundred thousand
class Step:
    """One item computing rows ``[start, stop)``.

    Attributes:
        item: Index in the phase's items.
        start: First row; of the input for a reduction.
        stop: Row after the last.
        drop: For inputs held in line buffers, the first row still needed.
    """

    item: int
    start: int
    stop: int
    drop: tuple[tuple[str, int], ...]


@dataclass
class PhaseSchedule:
    """All steps of a phase.

    When the last scene rows have arrived, the rows still under way are drained at
    the pace of the stripes, so that the end of a scene needs no more memory than
    its middle.

    Attributes:
        stripes: Per stripe, the scene rows that have arrived when it ends.
        steps: Per stripe, its steps.
        peak_bytes: Most bytes held at once in line buffers and the step under way.
        first_output_stripe: First stripe that computes rows of the phase's last item.
    """

    stripes: list[int] = field(default_factory=list)
    steps: list[list[Step]] = field(default_factory=list)
    peak_bytes: int = 0
    first_output_stripe: int = 0


def schedule_phase(layout: SceneLayout, phase: Phase, stripe: int) -> PhaseSchedule:
    """Dry run of one phase.

    Args:
        layout: The network laid out.
        phase: One of its phases.
        stripe: Scene rows a stripe brings.

    Returns:
        Its steps and the bytes they hold.
    """
    return _DryRun(layout, phase, stripe).run()


class _DryRun:
    def __init__(self, layout: SceneLayout, phase: Phase, stripe: int) -> None:
        self._layout, self._phase, self._stripe = layout, phase, stripe
        self._scene_rows = layout.rows[layout.graph.input].rows
        self._buffered = phase.computed() | {layout.graph.input}
        self._have: dict[str, int] = {}  # rows that exist so far
        self._low: dict[str, int] = {}  # first row held
        self._held: dict[str, int] = {}  # rows allocated
        self._readers: dict[str, list[int]] = {}
        for index, item in enumerate(phase.items):
            for name in item_inputs(item):
                self._readers.setdefault(name, []).append(index)
        self._done = [0] * len(phase.items)
        self._pace = [1] * len(phase.items)
        self._bytes = 0
        self._row_bytes = {name: layout.row_bytes(name) for name in {*self._readers, *phase.computed()}}

    def run(self) -> PhaseSchedule:
        result = PhaseSchedule()
        end = 0
        while end < self._scene_rows or not self._finished():
            end = min(end + self._stripe, self._scene_rows)
            self._arrive(end)
            steps = [self._advance(index, result) for index in range(len(self._phase.items))]
            result.stripes.append(end)
            result.steps.append([step for step in steps if step is not None])
        last = len(self._phase.items) - 1
        result.first_output_stripe = next(
            (number for number, steps in enumerate(result.steps) if any(step.item == last for step in steps)),
            0,
        )
        return result

    def _finished(self) -> bool:
        """Whether every item has computed, or been fed, all of its rows."""
        ends = (
            self._layout.rows[item.input].rows if isinstance(item, Reduction) else item.layout.rows
            for item in self._phase.items
        )
        return all(done == end for done, end in zip(self._done, ends, strict=True))

    def _arrive(self, end: int) -> None:
        """Rows of the scene and of stored tensors that this stripe may read."""
        for name in self._readers:
            rows = self._layout.rows[name].rows
            if name == self._layout.graph.input:
                self._grow(name, end - self._have.get(name, 0))
            elif name not in self._buffered:
                self._have[name] = rows if end == self._scene_rows else rows * end // self._scene_rows

    def _advance(self, index: int, result: PhaseSchedule) -> Step | None:
        item, start = self._phase.items[index], self._done[index]
        stop = self._reach(index, start)
        if stop <= start:
            return None
        self._done[index], self._pace[index] = stop, stop - start
        name = item_name(item)
        if isinstance(item, RowRule):
            out = (stop - start) * self._row_bytes[name]
            source = zip(item.inputs, item.source(start, stop), strict=True)
            read = sum((high - low) * self._row_bytes[given] for given, (low, high) in source)
            result.peak_bytes = max(result.peak_bytes, self._bytes + read + 2 * out)
            if name in self._readers:
                self._grow(name, stop - start)
            else:
                self._have[name] = stop
        return Step(index, start, stop, self._drop(item))

    def _drop(self, item: RowRule | Reduction) -> tuple[tuple[str, int], ...]:
        dropped = []
        for name in item_inputs(item):
            if name in self._buffered:
                low = min(self._first_needed(reader, name) for reader in self._readers[name])
                low = min(low, self._have.get(name, 0))
                if low > self._low.get(name, 0):
                    self._shrink(name, low)
                    dropped.append((name, low))
        return tuple(dropped)

    def _first_needed(self, index: int, name: str) -> int:
        """First row of an input the reader still needs for its next output row."""
        item, done = self._phase.items[index], self._done[index]
        if isinstance(item, Reduction):
            return done
        if done >= item.layout.rows:
            return self._layout.rows[name].rows
        return item.source(done, done + 1)[item.inputs.index(name)][0]

    def _reach(self, index: int, start: int) -> int:
        item = self._phase.items[index]
        if isinstance(item, Reduction):
            return self._have.get(item.input, 0)
        have = [self._have.get(name, 0) for name in item.inputs]
        whole = [self._layout.rows[name].rows for name in item.inputs]

        def possible(stop: int) -> bool:
            return all(high <= rows for (_, high), rows in zip(item.source(start, stop), have, strict=True))

        rows = item.layout.rows
        pace = -(-rows * self._stripe // self._scene_rows) + _CATCH_UP
        limit = min(rows, start + pace) if have == whole else rows
        return furthest(possible, start, limit, self._pace[index])

    def _grow(self, name: str, rows: int) -> None:
        self._have[name] = self._have.get(name, 0) + rows
        self._low.setdefault(name, 0)
        self._hold(name, self._have[name] - self._low[name])

    def _shrink(self, name: str, low: int) -> None:
        self._low[name] = low
        kept = self._have[name] - low
        if kept <= self._held[name] // 2:  # as LineBuffer.drop
            self._hold(name, kept)

    def _hold(self, name: str, rows: int) -> None:
        self._bytes += (rows - self._held.get(name, 0)) * self._row_bytes[name]
        self._held[name] = rows


def furthest(possible: Callable[[int], bool], start: int, limit: int, pace: int) -> int:
    """Largest ``stop`` in ``[start, limit]`` with ``possible(stop)``, a monotone test true at ``start``.

    Gallops from ``start`` in steps of about ``pace``, then bisects.
    """
    low, step = start, pace
    if low < limit and possible(min(low + step, limit)):
        low, step = min(low + step, limit), 1
    while low < limit and possible(min(low + step, limit)):
        low, step = min(low + step, limit), 2 * step
    high = min(low + step, limit + 1)
    if low == limit:
        return limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return low
