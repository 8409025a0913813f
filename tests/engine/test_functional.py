"""Capture without a second trace: the very graph that torch's own decomposition gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rest_backend.engine import capture
from rest_backend.engine.graph import Ref, SceneGraph
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network
from tests.engine.sweeping import Whole, sweep, whole


def _smp(encoder: str, decoder: str) -> Callable[[], nn.Module]:
    return lambda: build_network(Architecture(encoder=encoder, decoder=decoder), 3, 4)


def _in_turn(graph: SceneGraph) -> list[tuple[Any, ...]]:
    """The operations with operands by number: names and copies are all that may differ."""
    number: dict[str, Any] = {name: name for name in (*graph.constants, graph.input)}
    found: list[tuple[Any, ...]] = []

    def numbered(value: Any) -> Any:
        if isinstance(value, Ref):
            return ("operand", number[value.name])
        return [numbered(item) for item in value] if isinstance(value, (list, tuple)) else value

    for operation in graph.operations:
        if operation.kind == "aten::clone":  # what torch makes of a dropout that does nothing
            number[operation.name] = number[operation.operands()[0]]
            continue
        number[operation.name] = len(found)
        arguments = (
            numbered(operation.args),
            {key: numbered(value) for key, value in operation.kwargs.items()},
        )
        found.append((operation.target, arguments, operation.shape, operation.dtype))
    return found


SIMPLE = {
    "bundled kind": _smp("tu-tf_efficientnet_lite0", "unet"),
    "resnet and group norm": _smp("tu-resnet18", "fpn"),
    "channels last and dropout": _smp("tu-convnext_atto", "unet"),
    "dilated, pooled": _smp("tu-resnet18", "deeplabv3plus"),
}


@pytest.mark.parametrize("name", SIMPLE)
def test_a_network_that_overwrites_what_it_made_is_captured_at_once(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SIMPLE[name]().eval()
    asked: list[str] = []
    decompose = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram,
        "run_decompositions",
        lambda self, table: asked.append(name) or decompose(self, table),
    )
    graph = capture.capture_graph(model, 3, 96, 64)
    assert asked == []
    monkeypatch.setattr(capture, "functional", lambda exported: exported.run_decompositions({}))
    assert _in_turn(graph) == _in_turn(capture.capture_graph(model, 3, 96, 64))
    assert asked == [name]


def _shared(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    z = y.relu_()
    return y + z + x


def _through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, :1].clamp_(max=0)
    return y


def _seen_before(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    view = y[:, 1:]
    y.relu_()
    return torch.cat([y, view], dim=1)


class Statistics(nn.Module):
    """Batch normalisation that keeps no statistics: by those of the scene, even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        return self.norm(scene * 2).relu_()


TANGLED: dict[str, Callable[[], nn.Module]] = {
    "the overwritten is read again": lambda: Whole(_shared),
    "written through a view": lambda: Whole(_through_a_view),
    "a view sees what is overwritten": lambda: Whole(_seen_before),
    "other type": lambda: Whole(lambda x: (x > 0).int().add_(3).mul_(2) + x.mul(2).add_((x > 1).int())),
    "statistics of the scene": Statistics,
}


@pytest.mark.parametrize("name", TANGLED)
def test_what_is_written_into_is_what_the_plain_forward_gives(name: str) -> None:
    model = TANGLED[name]().eval()
    scene = torch.randn(1, 3, 20, 16)
    reference = whole(model, scene.clone())
    result, _, _ = sweep(model, scene.clone(), 7)
    torch.testing.assert_close(result, reference, rtol=0, atol=1e-5)
