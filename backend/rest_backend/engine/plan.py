"""The plan: what a run will do and hold, decided before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from rest_backend.engine.layout import SceneLayout
from rest_backend.engine.schedule import PhaseSchedule
from rest_backend.errors import ResourceError

PREFERRED_STRIPES = {"cpu": (64, 32), "cuda": (512, 256, 128, 64, 32)}  # scene rows, best first

Schedule = Callable[[int], tuple[PhaseSchedule, ...]]


@dataclass(frozen=True)
class Plan:
    """How a scene will be swept.

    Attributes:
        device: Device the sweep runs on.
        stripe: Scene rows a stripe brings.
        phases: Steps of each phase.
        fallback_ops: Kinds of operations that run whole for want of a rule.
        weights_bytes: Bytes of parameters and constants.
        stripe_bytes: Most bytes of line buffers and the step under way.
        stored_bytes: Most bytes stored between phases at once, whole operations included.
        spill_folder: Folder whose mapped files hold the stored tensors; None: memory.
        context_rows: Scene rows read before the first result row is final.
        scene_shape: ``(bands, height, width)`` in pixels.
    """

    device: torch.device
    stripe: int
    phases: tuple[PhaseSchedule, ...]
    fallback_ops: tuple[str, ...]
    weights_bytes: int
    stripe_bytes: int
    stored_bytes: int
    spill_folder: Path | None
    context_rows: int
    scene_shape: tuple[int, int, int]

    @property
    def peak_bytes(self) -> int:
        """Most bytes of tensors held in memory at once."""
        return self.weights_bytes + self.stripe_bytes + (0 if self.spill_folder else self.stored_bytes)

    @property
    def stripe_count(self) -> int:
        """Stripes of all phases, those that drain included."""
        return sum(len(phase.stripes) for phase in self.phases)

    def __str__(self) -> str:
        bands, height, width = self.scene_shape
        where = f"mapped files in {self.spill_folder}" if self.spill_folder else "memory"
        lines = [
            f"scene    {width} x {height} pixels, {bands} bands, on {self.device}",
            f"stripes  {self.stripe} rows, {len(self.phases)} phase(s);"
            f" first result rows after {self.context_rows} rows",
            f"memory   {_megabytes(self.peak_bytes)}: weights {_megabytes(self.weights_bytes)},"
            f" stripes {_megabytes(self.stripe_bytes)}",
        ]
        if self.stored_bytes:
            lines.append(f"stored   {_megabytes(self.stored_bytes)} between phases, in {where}")
        if self.fallback_ops:
            lines.append(
                "whole    no row rule, computed on the whole scene at once: " + ", ".join(self.fallback_ops)
            )
        return "\n".join(lines)


def make_plan(
    layout: SceneLayout,
    schedule: Schedule,
    memory_limit: int | None,
    device: torch.device,
    stripe: int | None,
    spill_folder: Path | None,
) -> Plan:
    """Choose stripe height and where stored tensors live.

    Args:
        layout: The network laid out.
        schedule: Gives the steps of each phase for a stripe height.
        memory_limit: Bytes of tensors the run may hold; None: no limit.
        device: Device of the sweep.
        stripe: Scene rows per stripe; None: the device's best that fits.
        spill_folder: Where stored tensors may go when memory does not suffice.

    Returns:
        The first plan that fits, in order of preference.

    Raises:
        ResourceError: ``E_MEMORY`` when none fits; the sentence says what would.
    """
    smallest: Plan | None = None
    for plan in _plans(layout, schedule, device, stripe, spill_folder):
        if memory_limit is None or plan.peak_bytes <= memory_limit:
            return plan
        if smallest is None or plan.peak_bytes < smallest.peak_bytes:
            smallest = plan
    assert smallest is not None
    raise ResourceError(
        "E_MEMORY",
        f"The memory limit leaves {_megabytes(max(0, memory_limit or 0))} for tensors; the smallest that"
        f" works for this scene and network is {_megabytes(smallest.peak_bytes)}. Raise the memory limit,"
        f" choose a narrower window (now {smallest.scene_shape[2]} columns) or a smaller network.",
    )


def smallest_limit(
    layout: SceneLayout, schedule: Schedule, device: torch.device, spill_folder: Path | None
) -> int:
    """The smallest memory limit with which :func:`make_plan` finds a plan.

    Args:
        layout: The network laid out.
        schedule: As for :func:`make_plan`.
        device: Device of the sweep.
        spill_folder: Where stored tensors may go.

    Returns:
        Bytes of tensors.
    """
    return min(plan.peak_bytes for plan in _plans(layout, schedule, device, None, spill_folder))


def _plans(
    layout: SceneLayout,
    schedule: Schedule,
    device: torch.device,
    stripe: int | None,
    spill_folder: Path | None,
) -> Iterator[Plan]:
    """Plans in order of preference."""
    preferred = PREFERRED_STRIPES.get(device.type, PREFERRED_STRIPES["cpu"])
    for rows in (stripe,) if stripe else preferred:
        phases = schedule(rows)
        for folder in (None, spill_folder) if spill_folder else (None,):
            yield _plan(layout, phases, device, rows, folder)


def _plan(
    layout: SceneLayout,
    phases: tuple[PhaseSchedule, ...],
    device: torch.device,
    stripe: int,
    folder: Path | None,
) -> Plan:
    graph = layout.graph
    last = phases[-1]
    stored, whole = _stored_bytes(layout)
    return Plan(
        device=device,
        stripe=stripe,
        phases=phases,
        fallback_ops=tuple(layout.fallback),
        weights_bytes=_constant_bytes(layout),
        stripe_bytes=max(phase.peak_bytes for phase in phases) + (whole if folder else 0),
        stored_bytes=stored if folder else max(stored, whole),
        spill_folder=folder if stored else None,
        context_rows=last.stripes[last.first_output_stripe] if len(phases) == 1 else layout.scene_rows,
        scene_shape=graph.shapes[graph.input][1:],  # type: ignore[arg-type]
    )


def _constant_bytes(layout: SceneLayout) -> int:
    """Bytes of parameters and of what is computed from constants alone."""
    names = [*layout.graph.constants, *(operation.name for operation in layout.constant)]
    sizes = (prod(layout.graph.shapes[name]) * layout.graph.dtypes[name].itemsize for name in names)
    return sum(sizes)


def _stored_bytes(layout: SceneLayout) -> tuple[int, int]:
    """Most bytes stored at once, and most bytes a whole operation holds beside its stored operands."""
    held = peak = whole = 0
    sizes: dict[str, int] = {}
    for phase in layout.phases:
        for operation in phase.whole:
            operands = sum(_whole_bytes(layout, name) for name in operation.operands())
            result = _whole_bytes(layout, operation.name)
            whole = max(whole, held + operands + 2 * result)
            sizes[operation.name] = result
            held += result
        for name in phase.stored:
            sizes[name] = _whole_bytes(layout, name)
            held += sizes[name]
        peak = max(peak, held)
        held -= sum(sizes.pop(name, 0) for name in phase.expiring)
    return peak, whole


def _whole_bytes(layout: SceneLayout, name: str) -> int:
    if name in layout.graph.constants:
        return 0
    return prod(layout.graph.shapes[name]) * layout.graph.dtypes[name].itemsize


def _megabytes(count: int) -> str:
    """Rounded up: a limit of as much as is told suffices."""
    return f"{-(-count // 10**6):,} MB"
