"""Capture, plan and sweep: what is promised besides the numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rest_backend.engine import SceneProgram, row_rule
from rest_backend.engine.rules.rowwise import Pointwise, SameRows
from rest_backend.engine.schedule import furthest
from rest_backend.errors import InputError, ResourceError
from tests.engine.sweeping import Whole, sweep, whole


class Deep(nn.Module):
    """A stack whose halo is larger than a stripe, with a skip connection."""

    def __init__(self, layers: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 3, 5, padding=2) for _ in range(layers))

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        result = scene
        for layer in self.layers:
            result = torch.tanh(layer(result))
        return result + scene


def test_each_row_is_computed_once_and_read_once() -> None:
    model = Deep().eval()
    program = SceneProgram.capture(model, 3, 90, 20)
    plan = program.plan(stripe=4)
    for phase in plan.phases:
        done: dict[int, int] = {}
        for step in (step for steps in phase.steps for step in steps):
            assert step.start == done.get(step.item, 0)
            done[step.item] = step.stop
        assert set(done.values()) == {90}
    read: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> torch.Tensor:
        read.append((start, stop))
        return torch.zeros(1, 3, stop - start, 20)

    program.run(rows, lambda start, logits: None, plan)
    assert read == [(start, min(start + 4, 90)) for start in range(0, 90, 4)]


def test_a_halo_larger_than_a_stripe_and_than_the_scene() -> None:
    model = Deep().double().eval()
    for height in (1, 3, 90):
        scene = torch.randn(1, 3, height, 9, dtype=torch.float64)
        for stripe in (1, 2, 200):
            result, _, _ = sweep(model, scene, stripe)
            torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-12)


def test_memory_does_not_grow_with_height() -> None:
    peaks = [
        SceneProgram.capture(Deep().eval(), 3, height, 64).plan(stripe=16).peak_bytes
        for height in (256, 4096)
    ]
    assert peaks[0] == peaks[1]


def test_the_plan_speaks_of_what_it_does() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)).eval()
    plan = SceneProgram.capture(model, 3, 128, 96).plan(stripe=32)
    text = str(plan)
    assert "96 x 128 pixels, 3 bands" in text
    assert "2 phase(s)" in text
    assert plan.stored_bytes == 8 * 128 * 96 * 4
    assert plan.context_rows == 128


def test_a_limit_that_cannot_be_kept_is_refused_and_says_what_would() -> None:
    program = SceneProgram.capture(Deep().eval(), 3, 256, 256)
    needed = program.plan(stripe=32).peak_bytes
    assert program.plan(memory_limit=needed).peak_bytes <= needed
    with pytest.raises(ResourceError) as caught:
        program.plan(memory_limit=1000)
    assert caught.value.code == "E_MEMORY"
    assert "MB" in caught.value.message


def test_stored_tensors_move_to_mapped_files_when_memory_does_not_suffice(tmp_path: Path) -> None:
    model = (
        nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Conv2d(32, 2, 1))
        .double()
        .eval()
    )
    scene = torch.randn(1, 3, 300, 40, dtype=torch.float64)
    free = SceneProgram.capture(model, 3, 300, 40).plan(stripe=20)
    limit = free.peak_bytes - 1
    result, plan, _ = sweep(model, scene, 20, memory_limit=limit, spill_folder=tmp_path)
    assert plan.spill_folder == tmp_path
    assert plan.peak_bytes <= limit < free.peak_bytes
    torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_a_stripe_below_one_row_is_refused() -> None:
    with pytest.raises(InputError, match="at least one row"):
        SceneProgram.capture(Deep().eval(), 3, 16, 16).plan(stripe=0)


def test_unknown_operations_run_whole_and_are_named() -> None:
    def sorted_columns(scene: torch.Tensor) -> torch.Tensor:
        return torch.sort(F.relu(scene), dim=2)[0] * 2 + scene.cumsum(dim=2)

    scene = torch.randn(1, 3, 31, 8)
    result, plan, _ = sweep(Whole(sorted_columns).eval(), scene, 4)
    torch.testing.assert_close(result, sorted_columns(scene), rtol=0, atol=1e-6)
    assert {"aten::cumsum", "aten::sort"} <= set(plan.fallback_ops)
    assert "aten::sort" in str(plan)


def test_an_output_that_is_computed_whole_is_still_handed_out_by_rows() -> None:
    scene = torch.randn(1, 3, 31, 8)
    result, plan, intervals = sweep(Whole(lambda x: x.cumsum(dim=2)).eval(), scene, 4)
    torch.testing.assert_close(result, scene.cumsum(dim=2))
    assert plan.fallback_ops == ("aten::cumsum",)
    assert len(intervals) == 8


@torch.library.custom_op("rest_tests::halve", mutates_args=())
def halve(values: torch.Tensor) -> torch.Tensor:
    return values / 2


@halve.register_fake
def _(values: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(values)


def test_a_rule_for_a_custom_operation_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from rest_backend.engine.rules.registry import _Registry

    monkeypatch.setattr(_Registry, "rules", {kind: list(rules) for kind, rules in _Registry.rules.items()})
    scene, model = torch.randn(1, 3, 20, 8), Whole(halve).eval()
    _, plan, _ = sweep(model, scene, 6)
    assert plan.fallback_ops == ("rest_tests::halve",)

    @row_rule("rest_tests::halve")
    class Halve(SameRows):
        @classmethod
        def bind(cls, operation: Any, layouts: Any) -> Any:
            bound = Pointwise.bind(operation, layouts)
            return bound and cls(operation, bound.layout, bound.inputs)

    result, plan, _ = sweep(model, scene, 6)
    assert plan.fallback_ops == ()
    torch.testing.assert_close(result, scene / 2)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(InputError, match="eval") as caught:
        SceneProgram.capture(nn.Conv2d(3, 2, 1), 3, 8, 8)
    assert caught.value.code == "E_CAPTURE"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if float(x.sum()) > 0 else -x,  # depends on values
        lambda x: (x, x),  # two results
        lambda x: F.avg_pool2d(x, 2),  # another size
        lambda x: x.mean(),
    ],
)
def test_a_network_that_cannot_be_captured_is_refused_with_a_sentence(function: Any) -> None:
    with pytest.raises(InputError) as caught:
        SceneProgram.capture(Whole(function).eval(), 3, 8, 8)
    assert caught.value.code == "E_CAPTURE"
    assert len(caught.value.message) > 20


@pytest.mark.parametrize("answer", [0, 1, 2, 17, 99, 100])
@pytest.mark.parametrize("pace", [1, 5, 64])
def test_the_furthest_row_is_found(answer: int, pace: int) -> None:
    asked: list[int] = []

    def possible(stop: int) -> bool:
        asked.append(stop)
        return stop <= answer

    assert furthest(possible, 0, 100, pace) == answer
    assert len(asked) <= 20


def test_a_mask_is_stored_in_its_own_type() -> None:
    """A boolean computed before a barrier and read after it."""

    def masked(scene: torch.Tensor) -> torch.Tensor:
        mask = F.max_pool2d(scene, 3, 1, 1) > 0.5
        mean = scene.mean(dim=(2, 3), keepdim=True)
        return torch.where(mask, scene - mean, mean)

    scene = torch.randn(1, 3, 31, 8)
    result, plan, _ = sweep(Whole(masked).eval(), scene, 4)
    torch.testing.assert_close(result, masked(scene))
    assert plan.fallback_ops == ()
    assert len(plan.phases) == 2


def test_one_of_several_results_of_an_operation_without_a_rule() -> None:
    def sorted_columns(scene: torch.Tensor) -> torch.Tensor:
        return F.relu(torch.sort(scene, dim=2)[0]) + F.avg_pool2d(scene, 3, 1, 1)

    scene = torch.randn(1, 3, 31, 8)
    result, plan, intervals = sweep(Whole(sorted_columns).eval(), scene, 4)
    torch.testing.assert_close(result, sorted_columns(scene))
    assert plan.fallback_ops == ("aten::sort",)
    assert len(intervals) > 4


@pytest.mark.parametrize("spilled", [False, True])
def test_the_smallest_memory_limit_works_and_one_byte_less_does_not(tmp_path: Path, spilled: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Conv2d(32, 2, 1)).eval()
    program = SceneProgram.capture(model, 3, 300, 40)
    folder = tmp_path if spilled else None
    smallest = program.smallest_memory(spill_folder=folder)
    assert program.plan(smallest, spill_folder=folder).peak_bytes == smallest
    with pytest.raises(ResourceError) as caught:
        program.plan(smallest - 1, spill_folder=folder)
    assert caught.value.code == "E_MEMORY"
    assert (program.smallest_memory() > smallest) == spilled


def test_the_memory_error_names_a_limit_that_works() -> None:
    program = SceneProgram.capture(Deep().eval(), 3, 256, 1999)
    with pytest.raises(ResourceError) as caught:
        program.plan(1000)
    megabytes = re.search(r"smallest that works .*? is ([\d,]+) MB", caught.value.message)
    assert megabytes is not None
    limit = int(megabytes[1].replace(",", "")) * 10**6
    assert program.plan(limit).peak_bytes <= limit < program.smallest_memory() + 10**6
