"""The captured network: operations in order, their full-scene shapes, its constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Ref:
    """A tensor operand of an operation, by the name of the operation that makes it."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation of the captured network at the scene's full size.

    Attributes:
        name: Unique name in the graph.
        target: What computes it, called with ``args`` and ``kwargs``.
        args: Positional arguments; tensors are :class:`Ref`, lists may hold them.
        kwargs: Keyword arguments, likewise.
        shape: Shape of the whole-scene output; empty for a tuple of tensors.
        dtype: Its dtype.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def kind(self) -> str:
        """Name of the operation as rules know it, such as ``aten::conv2d``."""
        schema = getattr(self.target, "_schema", None)
        return str(schema.name) if schema is not None else getattr(self.target, "__name__", "unknown")

    def operands(self) -> tuple[str, ...]:
        """Names of the tensors it reads, each once, in order of appearance."""
        names: dict[str, None] = {}
        _collect((self.args, dict(self.kwargs)), names)
        return tuple(names)

    def resolve(self, lookup: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments with every :class:`Ref` replaced by ``lookup(name)``."""
        args, kwargs = _replace((self.args, dict(self.kwargs)), lookup)
        return args, kwargs


@dataclass
class SceneGraph:
    """A network as a list of operations over one scene.

    Attributes:
        input: Name of the scene, shape ``(1, bands, height, width)``.
        output: Name of the logits, shape ``(1, classes, height, width)``.
        operations: In an order where operands come first.
        constants: Parameters, buffers and literal tensors by name.
        shapes: Whole-scene shape of every name above.
        dtypes: Element type of every name above.
        dtype: Floating dtype of the network.
    """

    input: str
    output: str
    dtype: torch.dtype
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def describe(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Note what a tensor looks like over the whole scene."""
        self.shapes[name], self.dtypes[name] = shape, dtype


def _collect(value: Any, names: dict[str, None]) -> None:
    if isinstance(value, Ref):
        names[value.name] = None
    elif isinstance(value, (tuple, list)):
        for item in value:
            _collect(item, names)
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, names)


def _replace(value: Any, lookup: Callable[[str], Any]) -> Any:
    if isinstance(value, Ref):
        return lookup(value.name)
    if isinstance(value, tuple):
        return tuple(_replace(item, lookup) for item in value)
    if isinstance(value, list):
        return [_replace(item, lookup) for item in value]
    if isinstance(value, dict):
        return {key: _replace(item, lookup) for key, item in value.items()}
    return value
