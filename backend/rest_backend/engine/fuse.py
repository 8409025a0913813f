"""Fuse: a BatchNorm in eval mode behind a convolution becomes part of its weights.

``y = (conv(x) - mean) / sqrt(var + eps) * scale + shift`` is a convolution with
weights ``w * f`` and bias ``(b - mean) * f + shift``, ``f = scale / sqrt(var + eps)``,
computed in float64 and rounded once. One pass over the activation less, and equal
to rounding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from rest_backend.engine.graph import Operation, Ref, SceneGraph


def fuse_batch_norms(graph: SceneGraph) -> None:
    """Fold every BatchNorm whose input is a convolution nobody else reads, in place."""
    readers = Counter(name for operation in graph.operations for name in operation.operands())
    by_name = {operation.name: operation for operation in graph.operations}
    gone: set[str] = set()
    result: list[Operation] = []
    for operation in graph.operations:
        convolution = _foldable(operation, by_name, graph)
        if convolution is not None and readers[convolution.name] == 1 and convolution.name != graph.output:
            gone.add(convolution.name)
            result.append(_fold(convolution, operation, graph))
        else:
            result.append(operation)
    graph.operations = [operation for operation in result if operation.name not in gone]
    used = {name for operation in graph.operations for name in operation.operands()}
    graph.constants = {name: value for name, value in graph.constants.items() if name in used}


def _foldable(norm: Operation, by_name: dict[str, Operation], graph: SceneGraph) -> Operation | None:
    """The convolution in front of a BatchNorm, when all of their parameters are the model's own."""
    if norm.kind != "aten::batch_norm":
        return None
    convolution = by_name.get(norm.args[0].name)
    if convolution is None or convolution.kind != "aten::conv2d" or convolution.kwargs:
        return None
    parameters = [value.name for value in (*norm.args[1:5], *convolution.args[1:3]) if isinstance(value, Ref)]
    return convolution if all(name in graph.constants for name in parameters) else None


def _fold(convolution: Operation, norm: Operation, graph: SceneGraph) -> Operation:
    def constant(value: object, default: float) -> torch.Tensor:
        if isinstance(value, Ref):
            return graph.constants[value.name].double()
        return torch.full((norm.shape[1],), default, dtype=torch.float64)

    scale, shift, mean, variance = (
        constant(value, default) for value, default in zip(norm.args[1:5], (1.0, 0.0, 0.0, 1.0), strict=True)
    )
    given = (*convolution.args, None)[:3]
    factor = scale / torch.sqrt(variance + norm.args[7])
    weight = constant(given[1], 0.0) * factor.view(-1, 1, 1, 1)
    bias = (constant(given[2], 0.0) - mean) * factor + shift
    names = f"{norm.name}.weight", f"{norm.name}.bias"
    for name, value in zip(names, (weight, bias), strict=True):
        graph.constants[name] = value.detach().to(graph.dtype)
        graph.shapes[name] = tuple(value.shape)
    args = (convolution.args[0], Ref(names[0]), Ref(names[1]), *convolution.args[3:])
    return replace(convolution, name=norm.name, args=args)
