"""The engine's front door: capture, plan, run."""

from __future__ import annotations

from pathlib import Path

import torch

from rest_backend.engine.capture import capture_graph
from rest_backend.engine.layout import SceneLayout, lay_out
from rest_backend.engine.plan import Plan, make_plan
from rest_backend.engine.sweep import OnStripe, ReadRows, Sweep, WriteRows
from rest_backend.errors import InputError


class SceneProgram:
    """A network captured for one scene size, ready to be swept over it.

    Attributes:
        layout: The network's operations in phases, with a rule for each.
    """

    def __init__(self, layout: SceneLayout) -> None:
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
        return cls(lay_out(capture_graph(model, bands, height, width)))

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
        return make_plan(self.layout, memory_limit, torch.device(device), stripe, spill_folder)

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
