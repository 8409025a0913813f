"""An exported graph without operations that write into their operands.

``ExportedProgram.run_decompositions`` traces the whole network anew for that, which takes
longer than the export itself. Most networks hold nothing but activations that overwrite
what the layer before them has just made, and those can be exchanged one by one; a graph
with anything else is left to torch.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram

# Composite operations that torch's own decomposition keeps whole.
_KEPT = frozenset(
    {
        "aten::conv2d", "aten::linear", "aten::layer_norm", "aten::group_norm", "aten::max_pool2d",
        "aten::adaptive_avg_pool2d", "aten::upsample_nearest2d", "aten::upsample_bilinear2d", "aten::pad",
        "aten::batch_norm", "aten::reshape",
    }
)  # fmt: skip
# Operations whose result is memory of its own that nothing else refers to.
_FRESH = frozenset(
    {
        "aten::conv2d", "aten::batch_norm", "aten::group_norm", "aten::layer_norm", "aten::linear",
        "aten::add", "aten::mul", "aten::cat",
    }
)  # fmt: skip
_DROPOUT = ("aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::feature_dropout_")


def functional(exported: ExportedProgram) -> ExportedProgram:
    """The same program without operations that write into their operands, in place where that is simple."""
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    fresh: set[torch.fx.Node] = set()
    if not all(_is_simple(node, fresh) for node in nodes):
        decomposed: ExportedProgram = exported.run_decompositions({})
        return decomposed
    for node in nodes:
        kind = _kind(node)
        if kind in _DROPOUT:
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)
        elif kind == "aten::batch_norm":
            node.args = (*node.args[:8], False)
        elif kind.endswith("_"):
            node.target = _without_writing(node.target)
    return exported


def _is_simple(node: torch.fx.Node, fresh: set[torch.fx.Node]) -> bool:
    """Whether an operation can stay, or be exchanged alone; notes in ``fresh`` what may be overwritten."""
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, OpOverload) or node.kwargs.get("out") is not None:
        return False
    kind = _kind(node)
    if kind in _DROPOUT:
        return node.args[2] is False  # not training: nothing is done
    if node.target._schema.is_mutable:
        first = node.args[0] if node.args else None
        if not isinstance(first, torch.fx.Node) or first not in fresh or len(first.users) != 1:
            return False
        fresh.add(node)
        return _without_writing(node.target) is not None and _keeps_type(node)
    if kind == "aten::batch_norm" and node.args[5] is not False:
        return False
    if kind in _FRESH:
        fresh.add(node)
    return kind in _KEPT or not _is_composite(node.target)


def _kind(node: torch.fx.Node) -> str:
    return str(node.target._schema.name) if isinstance(node.target, OpOverload) else ""


def _without_writing(target: Any) -> OpOverload | None:
    """``aten.relu`` for ``aten.relu_``."""
    namespace, _, name = str(target._schema.name).partition("::")
    if namespace != "aten" or not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(torch.ops.aten, name[:-1], None)
    found: OpOverload | None = getattr(packet, target._overloadname, None)
    return found if found is None or not found._schema.is_mutable else None


def _keeps_type(node: torch.fx.Node) -> bool:
    """Whether the result would have the operand's type without being written there."""
    types = {value.meta["val"].dtype for value in node.all_input_nodes if "val" in value.meta}
    return len(types) == 1


def _is_composite(target: OpOverload) -> bool:
    name = target.name()  # type: ignore[no-untyped-call]
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))
