"""What has no row rule, or no rows: still exact, named, or refused with a sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rest_backend.engine import SceneProgram
from rest_backend.engine.rules.stencil import Stencil
from rest_backend.engine.stored import StoredTensor
from rest_backend.errors import InputError, ResourceError
from rest_backend.methods.verify import VerifyRequest, verify
from tests.engine.sweeping import Whole, sweep, whole


@pytest.mark.parametrize("encoder", ["tu-swin_tiny_patch4_window7_224", "tu-edgenext_xx_small"])
def test_attention_runs_whole_and_equals_the_forward(encoder: str) -> None:
    summary = verify(VerifyRequest(encoder, "fpn", height=70, width=90, stripe=32, dtype="float64"))
    assert summary.max_rel_diff <= 1e-9
    assert summary.label_flips == 0
    assert summary.fallback_ops
    assert not any("group_" in name and not name.startswith("aten::") for name in summary.fallback_ops)


WHOLE = {
    "views of turned memory": lambda x: F.relu(x).flatten(1).roll(1, 1).view(x.shape),
    "a matrix on the right": lambda x: (
        (F.max_pool2d(x, 3, 1, 1).permute(0, 2, 3, 1) @ torch.eye(3) * 2).permute(0, 3, 1, 2)
    ),
    "turned": lambda x: x.transpose(2, 3),
    "turned twice": lambda x: F.relu(x.transpose(2, 3)).transpose(2, 3),
    "other type": lambda x: (F.relu(x).view(torch.int32) & 0x7F000000).view(torch.float32),
    "rows alone": lambda x: (r := x.mean((0, 1, 3))) is not None and x * (r - r.mean())[None, None, :, None],
    "a grid made in forward": lambda x: x * torch.stack(
        torch.meshgrid(torch.linspace(0, 1, x.shape[2]), torch.linspace(0, 1, x.shape[3]), indexing="ij")
    ).sum(0),
    "pooling with indices": lambda x: F.max_unpool2d(
        *F.max_pool2d(x, 2, return_indices=True), 2, output_size=x.shape
    ),
    "split and joined": lambda x: torch.cat([part * n for n, part in enumerate(x.split(1, dim=1))], dim=1),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("stripe", [1, 8, 64])
def test_function_equals_the_whole_forward(name: str, stripe: int) -> None:
    model = Whole(WHOLE[name]).eval()
    scene = torch.randn(1, 3, 32, 32)
    result, _, intervals = sweep(model, scene, stripe)
    torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-5)
    assert intervals[0][0] == 0
    assert intervals[-1][1] == 32


def test_what_depends_on_strides_is_refused_by_name() -> None:
    model = Whole(lambda x: F.relu(x).as_strided(x.shape, x.stride())).eval()
    with pytest.raises(InputError, match="as_strided") as caught:
        SceneProgram.capture(model, 3, 16, 16)
    assert caught.value.code == "E_CAPTURE"


def test_constants_made_in_forward_are_planned_and_follow_the_device() -> None:
    def gradient(x: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, 256).view(1, 1, -1, 1) * torch.linspace(0, 1, 512)
        return x * ramp

    program = SceneProgram.capture(Whole(gradient).eval(), 3, 256, 512)
    assert program.plan().weights_bytes >= 256 * 512 * 4
    kept = program._constants(torch.device("meta"))
    assert {value.device.type for value in kept.values()} == {"meta"}
    assert sum(value.numel() for value in kept.values()) == 256 * 512


def test_context_of_a_network_with_barriers_is_the_whole_scene() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GroupNorm(2, 4)).eval()
    assert SceneProgram.capture(model, 3, 128, 16).plan(stripe=32).context_rows == 128


@pytest.mark.parametrize(("rows", "target"), [(279, 459), (100, 141), (37, 90)])
def test_nearest_in_float64_counts_as_the_kernel_does(rows: int, target: int) -> None:
    def resized(x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(F.interpolate(x, size=(rows, 8)), size=(target, 8))

    model = nn.Sequential(nn.Conv2d(3, 3, 1).double(), Whole(resized)).eval()
    scene = torch.randn(1, 3, target, 8, dtype=torch.float64)
    scene = scene.contiguous(memory_format=torch.channels_last)
    result, _, _ = sweep(model, scene, 16)
    torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-12)


def test_stencils_by_brute_force() -> None:
    for size in range(1, 7):
        for kernel, stride, before, dilation in (
            (1, 1, 0, 1),
            (3, 1, 1, 1),
            (3, 2, 4, 1),
            (2, 3, 6, 2),
            (5, 1, 2, 1),
        ):
            stencil = Stencil(size, kernel, stride, before, dilation)
            for start in range(6):
                for stop in range(start + 1, 7):
                    low, high = (
                        start * stride - before,
                        (stop - 1) * stride - before + dilation * (kernel - 1) + 1,
                    )
                    seen = range(low, high)
                    inside = [row for row in seen if 0 <= row < size]
                    source, outside = stencil.source(start, stop), stencil.outside(start, stop)
                    assert list(range(*source)) == inside
                    assert outside == (sum(row < 0 for row in seen), sum(row >= size for row in seen))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room on disk cannot be taken in advance here")
def test_a_full_disk_is_told_when_a_tensor_is_to_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ResourceError) as caught:
        StoredTensor((1, 3, 64, 64), 2, torch.float32, torch.device("cpu"), tmp_path)
    assert caught.value.code == "E_DISK"
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_ignores_or_returns_its_scene() -> None:
    scene = torch.randn(1, 3, 16, 8)
    for function in (lambda x: torch.linspace(0, 1, 16 * 8).view(1, 1, 16, 8), lambda x: x):
        model = Whole(function).eval()
        result, _, _ = sweep(model, scene, 5)
        torch.testing.assert_close(result, whole(model, scene))
