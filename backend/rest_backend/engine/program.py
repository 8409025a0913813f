"""The engine's front door: capture, plan, run."""

from __future__ import annotations

from pathlib import Path

import torch

from rest_backend.engine.capture import capture_graph
from rest_backend.engine.layout import SceneLayout, lay_out
from rest_backend.engine.plan import Plan, make_plan, smallest_limit
from rest_backend.engine.reach import Window, reach, same_network
from rest_backend.engine.schedule import PhaseSchedule, schedule_phase
from rest_backend.engine.sweep import OnStripe, ReadRows, Sweep, WriteRows
from rest_backend.errors import InputError


class SceneProgram:
    """A network captured for one scene size, ready to be swept over it.

    Attributes:
        layout: The network's operations in phases, with a rule for each.
    """

    def __init__(self, model: torch.nn.Module, layout: SceneLayout) -> None:
        self._model = model
        self._part: SceneProgram | None = None  # the last one made
        self._schedules: dict[int, tuple[PhaseSchedule, ...]] = {}
        self.layout = layout

    @classmethod
    def capture(cls, model: torch.nn.Module, bands: int, height: int, width: int) -> SceneProgram:
        """Capture a network for a scene size.

        Args:
            model: Network in eval mode, ``(1, bands, H, W)`` to ``(1, classes, H, W)``.
            bands: Number of input bands.
            height: Scene rows in pixels, padded to what the network needs.
            width: Scene columns in pixels, likewise.

        Returns:
            The program. It shares the model's parameters.

        Raises:
            InputError: ``E_CAPTURE`` when the network cannot be captured.
        """
        return cls(model, lay_out(capture_graph(model, bands, height, width)))

    def needed_window(self, window: Window) -> Window | None:
        """The part of the padded scene from which a window's logits come out exactly.

        Run alone on that part, captured at its size, the network gives these pixels as it
        does on the whole scene: what borders, strides and receptive fields need is in it.

        Args:
            window: Column, row, width, height in pixels, inside the padded scene.

        Returns:
            The part, likewise: no larger than steps of the network's total stride make it,
            and as wide as the scene where the network is not known to be alike along its
            columns. None when nothing less than all rows will do: the network has a barrier,
            an operation without a rule, or one that depends on the place or the scene's size.

        Raises:
            InputError: ``E_WINDOW`` when the window is empty or not inside the padded scene.
        """
        column, row, width, height = window
        _, rows, columns = self.scene_shape
        if min(column, row) < 0 or min(width, height) < 1 or column + width > columns or row + height > rows:
            raise InputError("E_WINDOW", f"The window {window} is not inside {columns} x {rows} pixels.")
        found = reach(self.layout, window)
        if found is None:
            return None
        try:
            part = self.part(found.window[3], found.window[2])
        except InputError:  # the network does not take that size
            return None
        return found.window if same_network(self.layout, part.layout, found.shapes) else None

    def part(self, height: int, width: int) -> SceneProgram:
        """The same network captured for another size; what :meth:`needed_window` captured is not done again.

        Args:
            height: Rows in pixels.
            width: Columns in pixels.

        Returns:
            Its program, which shares the model's parameters.

        Raises:
            InputError: ``E_CAPTURE`` when the network cannot be captured at that size.
        """
        bands, rows, columns = self.scene_shape
        if (height, width) == (rows, columns):
            return self
        if self._part is None or self._part.scene_shape != (bands, height, width):
            self._part = SceneProgram.capture(self._model, bands, height, width)
        return self._part

    @property
    def scene_shape(self) -> tuple[int, int, int]:
        """Bands, rows and columns of the padded scene."""
        bands, rows, columns = self.layout.graph.shapes[self.layout.graph.input][1:]
        return bands, rows, columns

    def plan(
        self,
        memory_limit: int | None = None,
        device: str | torch.device = "cpu",
        *,
        stripe: int | None = None,
        spill_folder: Path | None = None,
    ) -> Plan:
        """Decide how to sweep within a memory limit.

        Args:
            memory_limit: Bytes of tensors the run may hold; None: no limit.
            device: Device of the sweep.
            stripe: Scene rows per stripe, in pixels; None: the device's best that fits.
            spill_folder: Where tensors stored between phases may go as mapped files.

        Returns:
            The plan; ``str(plan)`` is for people.

        Raises:
            InputError: ``E_STRIPE`` for a stripe below one row.
            ResourceError: ``E_MEMORY`` when no plan fits; the sentence says what would.
        """
        if stripe is not None and stripe < 1:
            raise InputError("E_STRIPE", f"A stripe has at least one row, not {stripe}.")
        return make_plan(
            self.layout, self._schedule, memory_limit, torch.device(device), stripe, spill_folder
        )

    def smallest_memory(self, device: str | torch.device = "cpu", spill_folder: Path | None = None) -> int:
        """The smallest memory limit with which :meth:`plan` finds a plan.

        Args:
            device: Device of the sweep.
            spill_folder: As for :meth:`plan`.

        Returns:
            Bytes of tensors; one less is refused with ``E_MEMORY``.
        """
        return smallest_limit(self.layout, self._schedule, torch.device(device), spill_folder)

    def run(
        self,
        read_rows: ReadRows,
        write_rows: WriteRows,
        plan: Plan | None = None,
        on_stripe: OnStripe | None = None,
    ) -> None:
        """Sweep the network over the scene.

        Args:
            read_rows: ``read_rows(start, stop)`` gives scene rows ``(1, bands, stop - start, width)``;
                called in order, once per phase that reads the scene.
            write_rows: ``write_rows(start, logits)`` takes finished rows
                ``(1, classes, rows, width)``, from the top, in order, without gap.
            plan: From :meth:`plan`; None plans without a limit on the CPU.
            on_stripe: ``on_stripe(done, stripes)`` after each stripe of each phase; an
                exception it raises ends the run.
        """
        plan = plan or self.plan()
        with torch.inference_mode():
            constants = self._constants(plan.device)
        Sweep(self.layout, plan, constants, read_rows, write_rows, on_stripe).run()

    def _schedule(self, stripe: int) -> tuple[PhaseSchedule, ...]:
        """Steps of each phase; a scene of many rows takes a second, so none is made twice."""
        if stripe not in self._schedules:
            self._schedules[stripe] = tuple(
                schedule_phase(self.layout, phase, stripe) for phase in self.layout.phases
            )
        return self._schedules[stripe]

    def _constants(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Parameters on the device, and what depends on them alone."""
        values = {name: _place(value, device) for name, value in self.layout.graph.constants.items()}
        for operation in self.layout.constant:
            args, kwargs = operation.resolve(values.__getitem__)
            if "device" in kwargs:  # where the network was captured, not where it runs
                kwargs["device"] = device
            values[operation.name] = operation.target(*args, **kwargs)
        read = self.layout.read_names()
        return {name: value for name, value in values.items() if name in read}


def _place(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    value = value.to(device)
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
