"""Operations that map a row to the same row: elementwise, per-pixel norms, linear maps.

Output rows ``[a, b)`` need input rows ``[a, b)``. Of the operand dimensions only
the row dimension is constrained: it must not be contracted or normalised over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rest_backend.engine.graph import Operation, Ref
from rest_backend.engine.rules.registry import Interval, Layout, Layouts, RowRule, row_rule


class SameRows(RowRule):
    """Base: every row operand is read at the output's own rows."""

    def source(self, start: int, stop: int) -> tuple[Interval, ...]:  # noqa: D102
        return ((start, stop),) * len(self.inputs)

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        result: torch.Tensor = self.operation.target(*args, **kwargs)
        return result


# "pointwise" stands for every operation torch tags so; these are elementwise without the tag.
@row_rule("pointwise", "aten::hardswish", "aten::log_sigmoid", "aten::rsub", "aten::to", "aten::_to_copy")
class Pointwise(SameRows):
    """Elementwise with broadcasting: the row dimension is counted from the right.

    Constants as tall as the scene are cut to the same rows; those of size 1 are not.
    """

    def __init__(
        self, operation: Operation, layout: Layout, inputs: tuple[str, ...], tall: tuple[str, ...]
    ) -> None:
        super().__init__(operation, layout, inputs)
        self._tall = tall
        self.shift = None if tall else (1, 1)  # a tall constant differs from row to row
        self.fresh = operation.kind != "aten::to"  # which may return its operand

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Pointwise | None:  # noqa: D102
        inputs = layouts.row_operands(operation)
        depth = {len(layouts.shapes[name]) - layouts.rows[name].dim for name in inputs}
        rows = {layouts.rows[name].rows for name in inputs}
        if len(depth) != 1 or len(rows) != 1:
            return None
        from_right = depth.pop()
        layout = Layout(len(operation.shape) - from_right, rows.pop())
        if layout.dim < 0 or operation.shape[layout.dim] != layout.rows:
            return None
        tall = [
            name
            for name in operation.operands()
            if name not in layouts.rows
            and len(layouts.shapes[name]) >= from_right
            and layouts.shapes[name][-from_right] != 1
        ]
        return cls(operation, layout, inputs, tuple(tall))

    def overwrite(self) -> Callable[..., torch.Tensor] | None:
        """The same operation writing into its first operand, where torch has one."""
        first = self.operation.args[0] if self.operation.args else None
        if not isinstance(first, Ref) or first.name not in self.inputs or self._tall:
            return None
        packet = getattr(torch.ops.aten, self.operation.kind.removeprefix("aten::") + "_", None)
        name = getattr(self.operation.target, "_overloadname", "")
        overload: Callable[..., torch.Tensor] | None = getattr(packet, name, None)
        return overload

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        if self._tall:
            args = tuple(
                value.narrow(value.dim() + self.layout.dim - len(self.operation.shape), start, stop - start)
                if isinstance(original, Ref) and original.name in self._tall
                else value
                for original, value in zip(self.operation.args, args, strict=True)
            )
        return super().compute(start, stop, args, kwargs)


@row_rule("aten::batch_norm", "aten::prelu", "aten::_prelu_kernel")
class PerChannel(SameRows):
    """Per-channel maps of an image: BatchNorm in eval mode, PReLU. Rows may not be dimension 1."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> PerChannel | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        return cls(operation, layout, layouts.row_operands(operation)) if layout and layout.dim >= 2 else None


@row_rule("aten::layer_norm")
class LayerNorm(SameRows):
    """Normalisation over trailing dimensions that do not include the rows."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> LayerNorm | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None or layout.dim >= len(operation.shape) - len(operation.args[1]):
            return None
        return cls(operation, layout, layouts.row_operands(operation))


@row_rule("aten::linear")
class Linear(SameRows):
    """A matrix applied to the last dimension, which must not be the rows."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Linear | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None or layout.dim == len(operation.shape) - 1:
            return None
        return cls(operation, layout, layouts.row_operands(operation))


@row_rule("aten::softmax", "aten::log_softmax", "aten::_softmax", "aten::glu")
class AlongOneDimension(SameRows):
    """Softmax and gates along a dimension that is not the rows."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> AlongOneDimension | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        dim = operation.args[1] if len(operation.args) > 1 else -1
        if layout is None or dim % len(operation.shape) == layout.dim:
            return None
        return cls(operation, layout, layouts.row_operands(operation))


@row_rule(
    "aten::clone", "aten::contiguous", "aten::alias", "aten::detach", "aten::detach_", "aten::lift_fresh_copy"
)
class Identity(SameRows):
    """Copies and aliases: the rows themselves; nothing is copied."""

    fresh = False
    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Identity | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        return cls(operation, layout, layouts.row_operands(operation)) if layout else None

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows: torch.Tensor = args[0]
        return rows


def first_operand_only(operation: Operation, layouts: Layouts) -> Layout | None:
    """Layout of the first argument when it is the only operand swept by rows."""
    first = operation.args[0] if operation.args else None
    if not isinstance(first, Ref) or layouts.row_operands(operation) != (first.name,):
        return None
    return layouts.rows[first.name]
