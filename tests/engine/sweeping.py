"""Run a module through the engine and as one whole forward, on the same scene."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rest_backend.engine import Plan, SceneProgram


class Whole(nn.Module):
    """A function of an image as a network in eval mode."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        return self.function(scene)


def sweep(
    model: nn.Module, scene: torch.Tensor, stripe: int, **options: object
) -> tuple[torch.Tensor, Plan, list[tuple[int, int]]]:
    """The engine's logits, its plan, and the intervals in which rows were handed out."""
    program = SceneProgram.capture(model, *scene.shape[1:])
    plan = program.plan(stripe=stripe, **options)  # type: ignore[arg-type]
    pieces: list[torch.Tensor] = []
    intervals: list[tuple[int, int]] = []

    def write(start: int, rows: torch.Tensor) -> None:
        intervals.append((start, start + rows.shape[2]))
        pieces.append(rows.clone())

    program.run(lambda start, stop: scene[:, :, start:stop], write, plan)
    return torch.cat(pieces, dim=2), plan, intervals


def whole(model: nn.Module, scene: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(scene)
