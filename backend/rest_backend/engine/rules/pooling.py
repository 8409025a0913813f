"""Pools: max and average over sliding windows, and means over the whole scene."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from rest_backend.engine.graph import Operation
from rest_backend.engine.rules.registry import Interval, Layout, Layouts, Reduction, RowRule, row_rule
from rest_backend.engine.rules.rowwise import first_operand_only
from rest_backend.engine.rules.stencil import Stencil, pair


class _Pool(RowRule):
    """Base: the stencil and arguments ``(input, kernel, stride, padding, ...)`` of a pool."""

    def __init__(self, operation: Operation, layout: Layout, inputs: tuple[str, ...], rows: int) -> None:
        super().__init__(operation, layout, inputs)
        given = (*operation.args, *(None,) * (7 - len(operation.args)))
        self._given = given
        self._kernel = pair(given[1])
        self._stride = pair(given[2]) if given[2] else self._kernel
        self._padding = pair(given[3], default=0)
        self._input_rows = rows
        self.shift = (self._stride[0], 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> _Pool | None:
        layout = first_operand_only(operation, layouts)
        if layout is None or layout.dim != 2 or len(operation.shape) != 4 or operation.kwargs:
            return None
        return cls(operation, Layout(2, operation.shape[2]), layouts.row_operands(operation), layout.rows)

    def source(self, start: int, stop: int) -> tuple[Interval, ...]:
        return (self._stencil().source(start, stop),)

    def _stencil(self) -> Stencil:
        dilation = pair(self._given[4])[0] if self.operation.kind == "aten::max_pool2d" else 1
        return Stencil(self._input_rows, self._kernel[0], self._stride[0], self._padding[0], dilation)


@row_rule("aten::max_pool2d")
class MaxPool(_Pool):
    """Max over the window; outside the scene, and where ``ceil_mode`` overhangs, is minus infinity."""

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows = self._stencil().pad(args[0], start, stop, float("-inf"))
        dilation, ceil = pair(self._given[4]), bool(self._given[5])
        return F.max_pool2d(rows, self._kernel, self._stride, (0, self._padding[1]), dilation, ceil_mode=ceil)


@row_rule("aten::avg_pool2d")
class AveragePool(_Pool):
    """Average over the window: columns by the kernel, rows summed and divided by hand.

    The divisor is a product of a row part and a column part; the row part comes
    from the position in the whole scene, so that windows at the border and those
    that overhang with ``ceil_mode`` divide as they do in the whole forward.
    """

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows = self._stencil().pad(args[0], start, stop, 0.0)
        ceil, include_pad, divisor = bool(self._given[4]), self._given[5], self._given[6]
        include_pad = True if include_pad is None else bool(include_pad)
        width = F.avg_pool2d(
            rows, (1, self._kernel[1]), (1, self._stride[1]), (0, self._padding[1]), ceil, include_pad,
            divisor_override=1 if divisor else None,
        )  # fmt: skip
        step, count = self._stride[0], stop - start
        total: torch.Tensor = width[:, :, 0 : (count - 1) * step + 1 : step]
        for offset in range(1, self._kernel[0]):
            total = total + width[:, :, offset : offset + (count - 1) * step + 1 : step]
        if divisor:
            return total.div(divisor)
        divisors = [self._row_divisor(row, include_pad) for row in range(start, stop)]
        return total / torch.tensor(divisors, dtype=total.dtype, device=total.device).view(1, 1, -1, 1)

    def _row_divisor(self, row: int, include_pad: bool) -> int:
        low = row * self._stride[0] - self._padding[0]
        high = min(low + self._kernel[0], self._input_rows + self._padding[0])
        return high - low if include_pad else min(high, self._input_rows) - max(low, 0)


@row_rule("aten::adaptive_avg_pool2d", "aten::mean")
class SceneMean(Reduction):
    """Mean over all rows and columns of an image: a sum per stripe in float64, divided at the end."""

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> SceneMean | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None or layout.dim != 2 or len(layouts.shapes[operation.operands()[0]]) != 4:
            return None
        if operation.kind == "aten::mean":
            dims = (
                {dim % 4 for dim in operation.args[1]}
                if len(operation.args) > 1 and operation.args[1]
                else set()
            )
            if dims != {2, 3} or operation.kwargs:
                return None
        elif list(operation.args[1]) != [1, 1]:
            return None
        return cls(operation, operation.operands()[0])

    def add(self, state: Any, rows: torch.Tensor) -> Any:  # noqa: D102
        total = rows.sum(dim=(2, 3), dtype=torch.float64)
        count = rows.shape[2] * rows.shape[3]
        return (total, count) if state is None else (state[0] + total, state[1] + count)

    def finish(self, state: Any) -> torch.Tensor:  # noqa: D102
        mean: torch.Tensor = (state[0] / state[1]).to(self.operation.dtype)
        return mean.view(self.operation.shape)
