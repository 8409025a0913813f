"""Sweep: a plan's steps run on tensors.

Per stripe: read the new scene rows, let every item compute its new rows, hand out
finished logits, drop the rows nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rest_backend.engine.in_place import in_place_items
from rest_backend.engine.layout import Phase, SceneLayout, item_inputs, item_name
from rest_backend.engine.line_buffer import LineBuffer
from rest_backend.engine.plan import Plan
from rest_backend.engine.rules import Reduction, RowRule
from rest_backend.engine.schedule import PhaseSchedule, Step
from rest_backend.engine.stored import StoredTensor

ReadRows = Callable[[int, int], torch.Tensor]
WriteRows = Callable[[int, torch.Tensor], None]
OnStripe = Callable[[int, int], None]


class Sweep:
    """One run of a laid-out network over one scene.

    Args:
        layout: The network laid out.
        plan: Its plan.
        constants: Parameters and constants on the plan's device.
        read_rows: ``read_rows(start, stop)`` gives scene rows ``(1, bands, stop - start, width)``.
        write_rows: ``write_rows(start, logits)`` takes ``(1, classes, rows, width)``, in order.
        on_stripe: ``on_stripe(done, stripes)`` after each stripe of each phase; may raise to stop.
    """

    def __init__(
        self,
        layout: SceneLayout,
        plan: Plan,
        constants: dict[str, torch.Tensor],
        read_rows: ReadRows,
        write_rows: WriteRows,
        on_stripe: OnStripe | None,
    ) -> None:
        self._layout, self._plan = layout, plan
        self._read_rows, self._write_rows, self._on_stripe = read_rows, write_rows, on_stripe
        self._whole: dict[str, Any] = dict(constants)
        self._stored: dict[str, StoredTensor] = {}
        self._buffers: dict[str, LineBuffer] = {}
        self._states: dict[str, Any] = {}
        self._storing: set[str] = set()
        self._in_place = in_place_items(layout)
        self._stripes_done = 0

    def run(self) -> None:
        """Run all phases."""
        with torch.inference_mode():
            for phase, schedule in zip(self._layout.phases, self._plan.phases, strict=True):
                self._run_phase(phase, schedule)

    def _run_phase(self, phase: Phase, schedule: PhaseSchedule) -> None:
        for operation in phase.whole:
            args, kwargs = operation.resolve(self._whole_value)
            self._whole[operation.name] = operation.target(*args, **kwargs)
        self._prepare(phase)
        scene = self._layout.graph.input
        read = scene in self._buffers or scene in self._storing
        arrived = 0
        for end, steps in zip(schedule.stripes, schedule.steps, strict=True):
            if read and end > arrived:
                self._produce(scene, arrived, self._scene(arrived, end))
            arrived = end
            for step in steps:
                self._run_step(phase.items[step.item], step)
            self._stripes_done += 1
            if self._on_stripe is not None:
                self._on_stripe(self._stripes_done, self._plan.stripe_count)
        self._close(phase)

    def _prepare(self, phase: Phase) -> None:
        """Line buffers for what this sweep computes and reads, stores for what it leaves behind."""
        buffered = phase.computed() | {self._layout.graph.input}
        for item in phase.items:
            for name in item_inputs(item):
                if name in buffered:
                    self._buffers[name] = LineBuffer(self._layout.rows[name].dim)
        for name in phase.stored:
            shape, dim = self._layout.graph.shapes[name], self._layout.rows[name].dim
            dtype = self._layout.graph.dtypes[name]
            self._stored[name] = StoredTensor(shape, dim, dtype, self._plan.device, self._plan.spill_folder)
        self._storing = set(phase.stored)

    def _close(self, phase: Phase) -> None:
        for item in phase.items:
            if isinstance(item, Reduction):
                name = item.operation.name
                self._whole[name] = item.finish(self._states.pop(name))
        for name in phase.expiring:
            self._stored.pop(name, None)
            self._whole.pop(name, None)
        self._buffers.clear()

    def _scene(self, start: int, stop: int) -> torch.Tensor:
        rows = self._read_rows(start, stop)
        rows = rows.to(self._plan.device, self._layout.graph.dtype, non_blocking=True)
        return rows.contiguous(memory_format=torch.channels_last)

    def _run_step(self, item: RowRule | Reduction, step: Step) -> None:
        if isinstance(item, Reduction):
            name = item.operation.name
            rows = self._rows(item.input, step.start, step.stop)
            self._states[name] = item.add(self._states.get(name), rows)
        else:
            source = dict(zip(item.inputs, item.source(step.start, step.stop), strict=True))

            def operand(name: str) -> Any:
                return self._rows(name, *source[name]) if name in source else self._whole_value(name)

            name = item_name(item)
            args, kwargs = item.operation.resolve(operand)
            overwrite = self._in_place.get(name)
            if overwrite is not None and self._buffers[item.inputs[0]].holds_only(*source[item.inputs[0]]):
                rows = overwrite(*args, **kwargs)
            else:
                rows = item.compute(step.start, step.stop, args, kwargs)
            self._produce(name, step.start, rows)
        for name, low in step.drop:
            self._buffers[name].drop(low)

    def _produce(self, name: str, start: int, rows: torch.Tensor) -> None:
        if name in self._buffers:
            self._buffers[name].append(rows)
        if name in self._storing:
            self._stored[name].write(start, rows)
        if name == self._layout.output:
            self._write_rows(start, rows)

    def _rows(self, name: str, low: int, high: int) -> torch.Tensor:
        if low == high:  # output rows that see only padding
            shape = list(self._layout.graph.shapes[name])
            shape[self._layout.rows[name].dim] = 0
            return torch.empty(shape, dtype=self._layout.graph.dtypes[name], device=self._plan.device)
        if name in self._buffers:
            return self._buffers[name].read(low, high)
        if name in self._stored:
            return self._stored[name].read(low, high)
        whole: torch.Tensor = self._whole[name]
        return whole.narrow(self._layout.rows[name].dim, low, high - low)

    def _whole_value(self, name: str) -> Any:
        stored = self._stored.get(name)
        return stored.whole() if stored is not None else self._whole[name]
