"""The whole-scene engine: capture once, sweep row by row, meet at barriers.

A network is captured as a static graph at the scene's real size. The graph is
then swept over the scene in stripes of rows: every node computes each of its
rows exactly once, consumers keep the few old rows they still need (line
buffers), and operations that need all rows at once cut the sweep into phases.
The result equals running the network on the whole scene at once; neither the
scene nor its logits are ever whole in memory.

    >>> program = SceneProgram.capture(model, bands=3, height=4096, width=4096)
    >>> plan = program.plan(memory_limit=2 * 10**9)
    >>> print(plan)
    >>> program.run(read_rows, write_rows, plan)
"""

from rest_backend.engine.plan import PREFERRED_STRIPES, Plan
from rest_backend.engine.program import SceneProgram
from rest_backend.engine.rules import Operation, Ref, RowRule, row_rule

__all__ = ["PREFERRED_STRIPES", "Operation", "Plan", "Ref", "RowRule", "SceneProgram", "row_rule"]
