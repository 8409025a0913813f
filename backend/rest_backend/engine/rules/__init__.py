"""Row rules: for each kind of operation, which input rows its output rows need.

One file per family, the formula in each docstring. An operation without a rule
runs whole on stored tensors: exact, only dearer, and named in the plan.
A rule for a custom operation is registered from outside::

    @row_rule("my::op")
    class MyRule(SameRows): ...
"""

from rest_backend.engine.graph import Operation, Ref
from rest_backend.engine.rules import convolution, normalisation, pooling, resample, reshape, rowwise
from rest_backend.engine.rules.registry import Layout, Layouts, Reduction, RowRule, bind_rule, row_rule

__all__ = [
    "Layout",
    "Layouts",
    "Operation",
    "Reduction",
    "Ref",
    "RowRule",
    "bind_rule",
    "convolution",
    "normalisation",
    "pooling",
    "resample",
    "reshape",
    "row_rule",
    "rowwise",
]
