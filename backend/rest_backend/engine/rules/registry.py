"""What a rule is, and which rule belongs to which kind of operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from rest_backend.engine.graph import Operation

Interval = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Where the rows of an activation are: dimension ``dim``, ``rows`` of them."""

    dim: int
    rows: int


@dataclass(frozen=True)
class Layouts:
    """What a rule may ask about the operands of an operation.

    Attributes:
        rows: Layout of every activation swept by rows; a name that is not here is
            a constant or a whole tensor.
        shapes: Whole-scene shape of every name.
    """

    rows: Mapping[str, Layout]
    shapes: Mapping[str, tuple[int, ...]]

    def row_operands(self, operation: Operation) -> tuple[str, ...]:
        """Operands that are swept by rows, in order of appearance."""
        return tuple(name for name in operation.operands() if name in self.rows)


class RowRule(ABC):
    """One operation bound to a scene: output rows ``[a, b)`` from the rows they need.

    Rules are monotone: more output rows never need fewer or earlier input rows.

    Attributes:
        operation: The operation, with whole-scene shapes.
        layout: Where the rows of its output are.
        inputs: Operands read by rows; all others arrive whole.
        fresh: Whether its result is memory of its own, not a view of an operand.
        shift: ``(input rows, output rows)`` by which the rule can be moved down the scene and
            still do the same, away from the scene's borders: ``(stride, 1)`` for a convolution.
            None, unless a rule says otherwise: what it does depends on the place or on the
            scene's size. See :mod:`rest_backend.engine.reach`.
    """

    fresh: bool = True
    shift: tuple[int, int] | None = None

    def __init__(self, operation: Operation, layout: Layout, inputs: tuple[str, ...]) -> None:
        self.operation = operation
        self.layout = layout
        self.inputs = inputs

    @classmethod
    @abstractmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> RowRule | None:
        """The rule for this operation, or None when it does not apply."""

    @abstractmethod
    def source(self, start: int, stop: int) -> tuple[Interval, ...]:
        """Rows of each of ``inputs`` that output rows ``[start, stop)`` need, clipped to what exists."""

    @abstractmethod
    def compute(self, start: int, stop: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Output rows ``[start, stop)``.

        Args:
            start: First output row.
            stop: Row after the last; ``stop > start``.
            args: The operation's arguments, row operands cut to ``source(start, stop)``.
            kwargs: Its keyword arguments, likewise.
        """


class Reduction(ABC):
    """An operation that needs all rows: partial sums per stripe, one small result.

    Attributes:
        operation: The operation.
        input: The operand it runs over.
    """

    def __init__(self, operation: Operation, source: str) -> None:
        self.operation = operation
        self.input = source

    @classmethod
    @abstractmethod
    def bind(cls, operation: Operation, layouts: Layouts) -> Reduction | None:
        """The reduction for this operation, or None when it does not apply."""

    @abstractmethod
    def add(self, state: Any, rows: torch.Tensor) -> Any:
        """State after the next rows; ``state`` is None at first. Rows come once, in order."""

    @abstractmethod
    def finish(self, state: Any) -> torch.Tensor:
        """The whole-scene result from the last state."""


Rule = TypeVar("Rule", bound=type[RowRule] | type[Reduction])


class _Registry:
    rules: ClassVar[dict[str, list[type[RowRule] | type[Reduction]]]] = {}


def row_rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for kinds of operations, by schema name such as ``aten::conv2d``.

    A later registration is asked first, so a user's rule comes before a built-in one.
    """

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            _Registry.rules.setdefault(kind, []).insert(0, rule)
        return rule

    return register


def bind_rule(operation: Operation, layouts: Layouts) -> RowRule | Reduction | None:
    """The first registered rule that applies to an operation; None: it runs whole."""
    candidates = list(_Registry.rules.get(operation.kind, ()))
    if torch.Tag.pointwise in getattr(operation.target, "tags", ()):
        candidates += _Registry.rules.get("pointwise", [])
    for rule in candidates:
        bound = rule.bind(operation, layouts)
        if bound is not None:
            return bound
    return None
