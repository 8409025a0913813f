"""Convolutions: any kernel, stride, dilation and groups; numeric, "same" and "valid" padding."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F

from rest_backend.engine.graph import Operation
from rest_backend.engine.rules.registry import Interval, Layout, Layouts, RowRule, row_rule
from rest_backend.engine.rules.rowwise import first_operand_only
from rest_backend.engine.rules.stencil import Stencil, pair

_HAS_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
_ONEDNN_ELEMENTS = 20480  # at or below, torch 2.x computes a float32 convolution without oneDNN


@row_rule("aten::conv2d")
class Convolution(RowRule):
    """``conv2d``: a stencil over the rows, padded with zeros outside the scene.

    "same" padding puts the odd row below and the odd column to the right.
    """

    def __init__(
        self,
        operation: Operation,
        layout: Layout,
        inputs: tuple[str, ...],
        rows: int,
        kernel: tuple[int, int],
        elements: int,
    ) -> None:
        super().__init__(operation, layout, inputs)
        given = (*operation.args, *(None,) * (7 - len(operation.args)))
        self._stride = pair(given[3])
        self._dilation = pair(given[5])
        self._groups = 1 if given[6] is None else int(given[6])
        top, _, self._left, self._right = _padding(given[4], kernel, self._dilation)
        self._stencil = Stencil(rows, kernel[0], self._stride[0], top, self._dilation[0])
        self._elements = elements
        self.shift = (self._stride[0], 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Convolution | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None or layout.dim != 2 or len(operation.shape) != 4 or operation.kwargs:
            return None
        weight, image = layouts.shapes[operation.args[1].name], layouts.shapes[operation.args[0].name]
        inputs, output = layouts.row_operands(operation), Layout(2, operation.shape[2])
        return cls(operation, output, inputs, layout.rows, (weight[2], weight[3]), prod(image))

    def source(self, start: int, stop: int) -> tuple[Interval, ...]:  # noqa: D102
        return (self._stencil.source(start, stop),)

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows, weight, bias = (*args[:3], None)[:3]
        rows = self._stencil.pad(rows, start, stop, 0.0)
        columns = self._left
        if self._left != self._right:
            rows, columns = F.pad(rows, (self._left, self._right)), 0
        if self._changes_kernel(rows, weight):
            padding, stride, dilation = [0, columns], list(self._stride), list(self._dilation)
            result: torch.Tensor = torch.ops.aten.mkldnn_convolution(
                rows, weight, bias, padding, stride, dilation, self._groups
            )
            return result
        return F.conv2d(rows, weight, bias, self._stride, (0, columns), self._dilation, self._groups)

    def _changes_kernel(self, rows: torch.Tensor, weight: torch.Tensor) -> bool:
        """Whether torch would compute these few rows with another kernel than the whole scene.

        On the CPU, torch hands float32 images to oneDNN above a number of elements and
        to its own kernel below, and the two round differently. Staying with oneDNN gives
        the very bits of the whole forward (measured: labels that flip at 0.8 megapixels
        under 32-row stripes fall from 7 to 0 for a U-Net).
        """
        if (rows.dtype, rows.device.type) != (torch.float32, "cpu") or not _HAS_ONEDNN:
            return False
        plain = weight.shape[2:] == (1, 1) and self._stride == (1, 1) and self._dilation == (1, 1)
        if plain and torch.get_num_threads() == 1:  # torch's own kernel whatever the size
            return False
        return rows.numel() <= _ONEDNN_ELEMENTS < self._elements


def _padding(given: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int, int, int]:
    """Padding ``(top, bottom, left, right)`` in pixels."""
    if given == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return total[0] // 2, total[0] - total[0] // 2, total[1] // 2, total[1] - total[1] // 2
    rows, columns = (0, 0) if given == "valid" else pair(given, default=0)
    return rows, rows, columns, columns


@row_rule("aten::pad", "aten::constant_pad_nd")
class ConstantPad(RowRule):
    """Constant padding: output row ``i`` is input row ``i - top``, or the constant."""

    shift = (1, 1)

    def __init__(
        self,
        operation: Operation,
        layout: Layout,
        inputs: tuple[str, ...],
        rows: int,
        pads: list[int],
        value: float,
    ) -> None:
        super().__init__(operation, layout, inputs)
        depth = len(operation.shape)
        place = 2 * (depth - 1 - layout.dim)
        padded = pads + [0] * (2 * depth - len(pads))
        self._stencil = Stencil(rows, 1, 1, padded[place])
        self._pads, self._place, self._value = padded, place, value

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> ConstantPad | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        mode = operation.args[2] if operation.kind == "aten::pad" and len(operation.args) > 2 else "constant"
        if layout is None or mode != "constant" or operation.kwargs:
            return None
        value = operation.args[3 if operation.kind == "aten::pad" else 2 :]
        pads = list(operation.args[1])
        rows = Layout(layout.dim, operation.shape[layout.dim])
        number = float(value[0]) if value and value[0] is not None else 0.0
        return cls(operation, rows, layouts.row_operands(operation), layout.rows, pads, number)

    def source(self, start: int, stop: int) -> tuple[Interval, ...]:  # noqa: D102
        return (self._stencil.source(start, stop),)

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        pads = list(self._pads)
        pads[self._place : self._place + 2] = self._stencil.outside(start, stop)
        return F.pad(args[0], pads, value=self._value)
