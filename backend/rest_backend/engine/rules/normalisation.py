"""Normalisation by statistics of the whole scene: GroupNorm as a barrier, then per pixel.

Each stripe gives a count, a mean and a sum of squared deviations per group; they
are merged by Chan, Golub and LeVeque's pairwise update (Stanford STAN-CS-79-773)
in float64, so that the statistics do not depend on where the stripes are cut.
"""

from __future__ import annotations

from typing import Any

import torch

from rest_backend.engine.graph import Operation
from rest_backend.engine.rules.registry import Layouts, Reduction, row_rule
from rest_backend.engine.rules.rowwise import SameRows

# Halves of an operation, by the name users know the whole by.
PUBLIC_KINDS = {"group_statistics": "aten::group_norm", "group_apply": "aten::group_norm"}


def group_statistics(image: torch.Tensor, groups: int) -> torch.Tensor:
    """Mean and biased variance per group of a whole image.

    Args:
        image: ``(1, C, H, W)``.
        groups: Number of channel groups.

    Returns:
        float64 ``(2, 1, groups)``: means, then variances.
    """
    variance, mean = torch.var_mean(image.reshape(1, groups, -1).double(), dim=2, correction=0)
    return torch.stack([mean, variance])


def group_apply(
    image: torch.Tensor,
    statistics: torch.Tensor,
    groups: int,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> torch.Tensor:
    """GroupNorm of any rows of an image with the statistics of the whole.

    Args:
        image: ``(1, C, rows, W)``.
        statistics: float64 ``(2, 1, groups)`` from :func:`group_statistics`.
        groups: Number of channel groups.
        weight: ``(C,)`` or None.
        bias: ``(C,)`` or None.
        eps: Added to the variance.

    Returns:
        Tensor like ``image``.
    """
    channels = image.shape[1] // groups
    scale = torch.rsqrt(statistics[1] + eps).repeat_interleave(channels)
    mean = statistics[0].repeat_interleave(channels)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    return torch.addcmul(_column(shift, image), image, _column(scale, image))


def _column(values: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    return values.to(image.dtype).view(1, -1, 1, 1)


@row_rule("group_statistics")
class GroupStatistics(Reduction):
    """Mean and variance per channel group over all rows."""

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> GroupStatistics | None:  # noqa: D102
        name = operation.operands()[0]
        layout = layouts.rows.get(name)
        return cls(operation, name) if layout is not None and layout.dim == 2 else None

    def add(self, state: Any, rows: torch.Tensor) -> Any:  # noqa: D102
        groups = int(self.operation.args[1])
        # Per channel first: a reduction over contiguous pixels in either memory format.
        count = rows.shape[2] * rows.shape[3]
        variance, mean = torch.var_mean(rows, dim=(2, 3), correction=0)
        mean, squares = mean.double().view(1, groups, -1), variance.double().view(1, groups, -1) * count
        centre = mean.mean(dim=2, keepdim=True)
        squares = squares.sum(dim=2) + ((mean - centre) ** 2).sum(dim=2) * count
        part = (count * mean.shape[2], centre.squeeze(2), squares)
        return part if state is None else _merge(state, part)

    def finish(self, state: Any) -> torch.Tensor:  # noqa: D102
        count, mean, squares = state
        return torch.stack([mean, squares / count])


def _merge(first: Any, second: Any) -> Any:
    count = first[0] + second[0]
    delta = second[1] - first[1]
    mean = first[1] + delta * (second[0] / count)
    return count, mean, first[2] + second[2] + delta**2 * (first[0] * second[0] / count)


@row_rule("group_apply")
class GroupApply(SameRows):
    """The per-pixel half of GroupNorm, once the statistics are known."""

    @classmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> GroupApply | None:  # noqa: D102
        inputs = layouts.row_operands(operation)
        if inputs != (operation.args[0].name,) or layouts.rows[inputs[0]].dim != 2:
            return None
        return cls(operation, layouts.rows[inputs[0]], inputs)
