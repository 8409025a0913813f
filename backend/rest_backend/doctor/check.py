"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """What was found about one topic.

    Attributes:
        name: The topic, one word.
        state: ``ok``; ``warning``, it works but not as well as it could; ``problem``, jobs fail.
        message: What was found; of a warning or problem, also what to do.
        facts: The same in numbers, JSON types only.
    """

    name: str
    state: State
    message: str
    facts: dict[str, Any] = field(default_factory=dict)
