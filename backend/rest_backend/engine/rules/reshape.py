"""Operations that move dimensions but keep each row whole."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from rest_backend.engine.graph import Operation
from rest_backend.engine.rules.registry import Layout, Layouts, row_rule
from rest_backend.engine.rules.rowwise import SameRows, first_operand_only


@row_rule("aten::permute", "aten::transpose", "aten::unsqueeze", "aten::squeeze")
class MovedDimensions(SameRows):
    """Permutations and dimensions of size 1 put in or taken out: the row dimension is mapped."""

    fresh = False
    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> MovedDimensions | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None:
            return None
        shape = list(layouts.shapes[operation.operands()[0]])
        shape[layout.dim] += 1  # one more row shows where the rows end up
        moved = operation.target(
            torch.empty(shape, device="meta"), *operation.args[1:], **operation.kwargs
        ).shape
        changed = [
            dim
            for dim, size in enumerate(operation.shape)
            if len(moved) == len(operation.shape) and moved[dim] != size
        ]
        if len(changed) != 1:
            return None
        return cls(operation, Layout(changed[0], layout.rows), layouts.row_operands(operation))


@row_rule("aten::view", "aten::reshape", "aten::_unsafe_view", "aten::flatten")
class KeptRows(SameRows):
    """Views that leave the row dimension as it is: same size, same product of the sizes before it."""

    fresh = False
    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> KeptRows | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None:
            return None
        if getattr(operation.target, "_overloadname", "") == "dtype":  # the same bytes as another type
            return None
        before = prod(layouts.shapes[operation.operands()[0]][: layout.dim])
        for dim, size in enumerate(operation.shape):
            if size == layout.rows and prod(operation.shape[:dim]) == before:
                return cls(operation, Layout(dim, layout.rows), layouts.row_operands(operation))
        return None

    def compute(  # noqa: D102
        self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor:
        rows: torch.Tensor = args[0]
        shape = list(self.operation.shape)
        shape[self.layout.dim] = stop - start
        return rows.reshape(shape)


@row_rule("aten::cat", "aten::stack")
class Joined(SameRows):
    """Concatenation and stacking along a dimension that is not the rows."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Joined | None:  # noqa: D102
        inputs = layouts.row_operands(operation)
        found = {layouts.rows[name] for name in inputs}
        dim = (operation.args[1] if len(operation.args) > 1 else 0) % len(operation.shape)
        if len(found) != 1 or len(operation.operands()) != len(inputs):
            return None
        layout = found.pop()
        if operation.kind == "aten::stack":
            layout = Layout(layout.dim + 1 if dim <= layout.dim else layout.dim, layout.rows)
        return cls(operation, layout, inputs) if dim != layout.dim else None


@row_rule("aten::sum", "aten::mean", "aten::amax", "aten::amin")
class Collapsed(SameRows):
    """Reductions over dimensions that do not include the rows."""

    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Collapsed | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        if layout is None or len(operation.args) < 2 or not operation.args[1]:
            return None
        depth = len(layouts.shapes[operation.operands()[0]])
        dims = {dim % depth for dim in operation.args[1]}
        if layout.dim in dims:
            return None
        keep = len(operation.args) > 2 and bool(operation.args[2])
        gone = 0 if keep else sum(dim < layout.dim for dim in dims)
        return cls(operation, Layout(layout.dim - gone, layout.rows), layouts.row_operands(operation))


@row_rule("aten::slice", "aten::select", "aten::narrow")
class OtherDimension(SameRows):
    """Slices along a dimension that is not the rows."""

    fresh = False
    shift = (1, 1)

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> OtherDimension | None:  # noqa: D102
        layout = first_operand_only(operation, layouts)
        dim = operation.args[1] if len(operation.args) > 1 else 0
        if layout is None or dim % len(layouts.shapes[operation.operands()[0]]) == layout.dim:
            return None
        dim %= len(layouts.shapes[operation.operands()[0]])
        gone = int(operation.kind == "aten::select" and dim < layout.dim)
        return cls(operation, Layout(layout.dim - gone, layout.rows), layouts.row_operands(operation))
