"""Capture: from an ``nn.Module`` to a static graph at the scene's real size.

``torch.export`` runs the module under fake tensors, so a scene of any size costs
no memory and all of the module's own shape arithmetic is exact. The exported
graph is made functional (no in-place operations) with its operations whole.
"""

from __future__ import annotations

import operator
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from rest_backend.engine.functional import functional
from rest_backend.engine.graph import Operation, Ref, SceneGraph
from rest_backend.engine.rules.normalisation import group_apply, group_statistics
from rest_backend.errors import InputError

_BATCH_NORM = "aten::_native_batch_norm_legit_no_training"
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
_ASSERTIONS = ("aten::_assert_tensor_metadata", "aten::_assert_async", "aten::sym_constrain_range")


def capture_graph(model: torch.nn.Module, bands: int, height: int, width: int) -> SceneGraph:
    """Capture a network for one scene size.

    Args:
        model: Network in eval mode; takes ``(1, bands, height, width)`` and returns
            one tensor ``(1, classes, height, width)``.
        bands: Number of input bands.
        height: Rows of the scene, padded as the network needs, in pixels.
        width: Columns of the scene, likewise.

    Returns:
        The graph; its constants share memory with the model's parameters.

    Raises:
        InputError: ``E_CAPTURE`` when the network cannot be captured, or does not
            return one tensor of the scene's height and width.
    """
    if model.training:
        raise InputError("E_CAPTURE", "The network is in training mode; call eval() before capturing it.")
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    exported = _export(model, (1, bands, height, width), dtype)
    return _build(exported, dtype, (height, width))


def _export(model: torch.nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> ExportedProgram:
    with FakeTensorMode(allow_non_fake_inputs=True):
        scene = torch.empty(shape, dtype=dtype)
    try:
        with warnings.catch_warnings():  # torch's own deprecations, of no use to a caller
            warnings.simplefilter("ignore", FutureWarning)
            exported: ExportedProgram = torch.export.export(model, (scene,), strict=False)
            return functional(exported)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            "E_CAPTURE", f"The network cannot be captured for a scene of {shape}: {first}"
        ) from error


def _build(exported: ExportedProgram, dtype: torch.dtype, size: tuple[int, int]) -> SceneGraph:
    graph = SceneGraph(input="", output="", dtype=dtype)
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    alias: dict[str, str] = {}

    def reference(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return Ref(alias.get(value.name, value.name))
        if isinstance(value, (tuple, list)):
            return type(value)(reference(item) for item in value)
        if isinstance(value, dict):
            return {key: reference(item) for key, item in value.items()}
        return value

    for node in exported.graph.nodes:
        if node.op == "placeholder":
            _placeholder(graph, exported, node.name, specs[node.name], node.meta["val"])
        elif node.op == "output":
            graph.output = _single_output(node, alias)
        elif node.target is operator.getitem and _is_batch_norm(node.args[0]) and node.args[1] == 0:
            alias[node.name] = node.args[0].name
        else:
            _append(graph, node, reference(tuple(node.args)), reference(dict(node.kwargs)))
    shape = graph.shapes.get(graph.output, ())
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != size:
        raise InputError(
            "E_CAPTURE",
            f"The network returns shape {shape}; one score per class and pixel of {size} is needed.",
        )
    return graph


def _placeholder(graph: SceneGraph, exported: ExportedProgram, name: str, spec: Any, fake: Any) -> None:
    graph.describe(name, tuple(fake.shape), fake.dtype)
    if spec.kind is InputKind.USER_INPUT:
        graph.input = name
    elif spec.target in exported.state_dict:
        graph.constants[name] = exported.state_dict[spec.target].detach()
    else:
        graph.constants[name] = exported.constants[spec.target].detach()


def _single_output(node: torch.fx.Node, alias: dict[str, str]) -> str:
    outputs = node.args[0]
    if (
        not isinstance(outputs, (tuple, list))
        or len(outputs) != 1
        or not isinstance(outputs[0], torch.fx.Node)
    ):
        raise InputError("E_CAPTURE", "The network must return one tensor: a score per class and pixel.")
    return alias.get(outputs[0].name, outputs[0].name)


def _append(graph: SceneGraph, node: torch.fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    fake = node.meta.get("val")
    first = fake[0] if isinstance(fake, (tuple, list)) and _is_batch_norm(node) else fake
    shape = tuple(int(n) for n in first.shape) if isinstance(first, torch.Tensor) else ()
    dtype = first.dtype if isinstance(first, torch.Tensor) else graph.dtype
    operation = Operation(node.name, node.target, args, kwargs, shape, dtype)  # type: ignore[arg-type]
    if operation.kind in _ASSERTIONS:
        return
    for part in _rewrite(operation):
        graph.operations.append(part)
        graph.describe(part.name, part.shape, part.dtype)
    if isinstance(first, (tuple, list)):  # several results: their bytes are what counts
        parts = [part for part in first if isinstance(part, torch.Tensor)]
        held = sum(int(part.numel()) * part.element_size() for part in parts)
        graph.describe(operation.name, (held,), torch.uint8)


def _rewrite(operation: Operation) -> list[Operation]:
    """Operations the exported form of which hides their row structure, in ours."""
    if operation.kind == _BATCH_NORM:
        args = (*operation.args[:5], False, operation.args[5], operation.args[6], False)
        return [
            Operation(
                operation.name, torch.ops.aten.batch_norm.default, args, {}, operation.shape, operation.dtype
            )
        ]
    if operation.kind == "aten::group_norm" and len(operation.shape) == 4:
        source, groups, *rest = operation.args
        weight, bias, eps = (rest + [None, None, 1e-5][len(rest) :])[:3]
        name = operation.name + ".statistics"
        statistics = Operation(name, group_statistics, (source, groups), {}, (2, 1, groups), torch.float64)
        args = (source, Ref(name), groups, weight, bias, eps)
        return [
            statistics,
            Operation(operation.name, group_apply, args, {}, operation.shape, operation.dtype),
        ]
    if operation.target in _VIEWS:  # a swept tensor has other strides than the one the view was made for
        return [replace(operation, target=torch.ops.aten.reshape.default)]
    return [operation]


def _is_batch_norm(node: Any) -> bool:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    return schema is not None and schema.name == _BATCH_NORM
