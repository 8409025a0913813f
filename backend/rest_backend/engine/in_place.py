"""Elementwise steps that may write into their operand: one activation less in memory.

That is safe when nobody else reads the operand, in any phase, and its memory is its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch

from rest_backend.engine.layout import SceneLayout, item_inputs, item_name
from rest_backend.engine.rules import RowRule
from rest_backend.engine.rules.rowwise import Pointwise


def in_place_items(layout: SceneLayout) -> dict[str, Callable[..., torch.Tensor]]:
    """In-place form of every item that may overwrite its first operand, by the item's name."""
    readers: Counter[str] = Counter()
    fresh: set[str] = set()
    for phase in layout.phases:
        for operation in phase.whole:
            readers.update(operation.operands())
        for item in phase.items:
            readers.update(item_inputs(item))
        kept = {*phase.stored, layout.output}
        fresh.update(
            item_name(item)
            for item in phase.items
            if isinstance(item, RowRule) and item.fresh and item_name(item) not in kept
        )
    found: dict[str, Callable[..., torch.Tensor]] = {}
    for phase in layout.phases:
        here = phase.computed()
        for item in phase.items:
            if not isinstance(item, Pointwise):
                continue
            operand, overwrite = item.inputs[0], item.overwrite()
            before = layout.graph.shapes[operand], layout.graph.dtypes[operand]
            same = before == (item.operation.shape, item.operation.dtype)
            if overwrite and same and operand in fresh & here and readers[operand] == 1:
                found[item_name(item)] = overwrite
    return found
