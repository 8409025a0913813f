"""Interpolation: source rows from the row's position in the whole scene.

Columns are resampled by torch's own kernel; rows by hand, because their
coordinates are those of the scene and not of the stripe. Coordinates are computed
as the kernel does, in the compute dtype with one rounding of ``scale * x + c``:
float64 coordinates would differ from the float32 kernel by 1.8e-3 at 7200 pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rest_backend.engine.graph import Operation
from rest_backend.engine.rules.registry import Interval, Layout, Layouts, RowRule, row_rule
from rest_backend.engine.rules.rowwise import first_operand_only


class _Upsample(RowRule):
    """Base: sizes and scales of an interpolation over an image."""

    _real: type[np.floating[Any]] = np.float32  # what the kernel computes coordinates in

    def __init__(
        self,
        operation: Operation,
        layout: Layout,
        inputs: tuple[str, ...],
        shape: tuple[int, ...],
        scales: Any,
    ) -> None:
        super().__init__(operation, layout, inputs)
        self._rows, self._width = shape[2], operation.shape[3]
        self._scales = scales
        self.shift = self._whole_factor()

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> _Upsample | None:
        layout = first_operand_only(operation, layouts)
        vector = str(getattr(operation.target, "_overloadname", "")) == "vec"
        if layout is None or layout.dim != 2 or len(operation.shape) != 4 or not vector:
            return None
        inputs = layouts.row_operands(operation)
        return cls(
            operation, Layout(2, operation.shape[2]), inputs, layouts.shapes[inputs[0]], operation.args[-1]
        )

    def source(self, start: int, stop: int) -> tuple[Interval, ...]:
        low, high = self._first(start), self._last(stop - 1)
        return ((low, high + 1),)

    def _whole_factor(self) -> Interval | None:
        """Rows ``(in, out)`` that repeat alike: a power of two up or down, which rounds at no place."""
        for given, made in ((self._rows, self.layout.rows), (self.layout.rows, self._rows)):
            factor, rest = divmod(made, given)
            if rest == 0 and factor & (factor - 1) == 0 and factor > 0:
                steps = (1, factor) if given == self._rows else (factor, 1)
                return steps if self._scale() == self._real(steps[0] / steps[1]) else None
        return None

    def _first(self, row: int) -> int:
        raise NotImplementedError

    def _last(self, row: int) -> int:
        raise NotImplementedError

    def _scale(self) -> Any:
        """Input rows per output row, rounded as the kernel rounds it."""
        if self._scales is not None and self._scales[0] is not None and self._scales[0] > 0:
            return self._real(1.0 / float(self._scales[0]))
        return self._real(self._rows) / self._real(self.layout.rows)


@row_rule("aten::upsample_nearest2d")
class Nearest(_Upsample):
    """Output row ``i`` is input row ``min(floor(i * scale), H - 1)``; the kernel counts in float32 always."""

    _real = np.float32

    def _first(self, row: int) -> int:
        return int(min(int(np.floor(self._real(row) * self._scale())), self._rows - 1))

    _last = _first

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows: torch.Tensor = args[0]
        factor, rest = divmod(self.layout.rows, self._rows)
        low = self._first(start)
        if rest == 0 and self._scale() == self._real(1.0 / factor) and factor & (factor - 1) == 0:
            wide = self._interpolate(rows, rows.shape[2] * factor)
            return wide.narrow(2, start - low * factor, stop - start)
        index = torch.tensor([self._first(row) - low for row in range(start, stop)], device=rows.device)
        return self._interpolate(rows, rows.shape[2]).index_select(2, index)

    def _interpolate(self, rows: torch.Tensor, height: int) -> torch.Tensor:
        scale = None if self._scales is None else self._scales[1]
        size = [height, self._width]
        result: torch.Tensor = torch.ops.aten.upsample_nearest2d.default(rows, size, None, scale)
        return result


@row_rule("aten::upsample_bilinear2d")
class Bilinear(_Upsample):
    """Output row ``i`` lies at ``x`` between two input rows; both ``align_corners``.

    ``x = i (H - 1) / (H_out - 1)`` with aligned corners, else
    ``max(0, (i + 1/2) scale - 1/2)``.
    """

    def _whole_factor(self) -> Interval | None:
        aligned = self.operation.args[2]  # then the factor depends on the scene's size
        return None if aligned else super()._whole_factor()

    @property
    def _real(self) -> type[np.floating[Any]]:  # type: ignore[override]
        """The kernel counts in the type of the values."""
        return np.float64 if self.operation.dtype == torch.float64 else np.float32

    def _position(self, row: int) -> tuple[int, int, float]:
        """Upper row, lower row and the lower row's weight."""
        if self.operation.args[2]:
            steps = self._real(self.layout.rows - 1)
            scale = self._real(self._rows - 1) / steps if steps > 0 else self._real(0)
            place = scale * self._real(row)
        else:
            product = float(self._scale()) * float(self._real(row) + self._real(0.5))  # exact in float64
            place = max(self._real(0), self._real(product - 0.5))
        upper = min(int(place), self._rows - 1)
        weight = float(min(max(place - self._real(upper), self._real(0)), self._real(1)))
        return upper, upper + (upper < self._rows - 1), weight

    def _first(self, row: int) -> int:
        return self._position(row)[0]

    def _last(self, row: int) -> int:
        return self._position(row)[1]

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows: torch.Tensor = args[0]
        wide = self._columns(rows)
        places = [self._position(row) for row in range(start, stop)]
        low = places[0][0]
        if wide.device.type == "cpu":
            shape = (*wide.shape[:2], stop - start, self._width)
            result = torch.empty(shape, dtype=wide.dtype, memory_format=torch.channels_last)
            for row, (upper, lower, weight) in enumerate(places):
                torch.lerp(wide[:, :, upper - low], wide[:, :, lower - low], weight, out=result[:, :, row])
            return result
        upper_rows = torch.tensor([upper - low for upper, _, _ in places], device=wide.device)
        lower_rows = torch.tensor([lower - low for _, lower, _ in places], device=wide.device)
        weights = torch.tensor([weight for _, _, weight in places], dtype=wide.dtype, device=wide.device)
        return torch.lerp(
            wide.index_select(2, upper_rows), wide.index_select(2, lower_rows), weights.view(1, 1, -1, 1)
        )

    def _columns(self, rows: torch.Tensor) -> torch.Tensor:
        """The columns resampled by the kernel; rows keep their number and values."""
        scale = None if self._scales is None else self._scales[1]
        size = [rows.shape[2], self._width]
        aligned = bool(self.operation.args[2])
        result: torch.Tensor = torch.ops.aten.upsample_bilinear2d.default(rows, size, aligned, None, scale)
        return result
