"""Every row rule against its plain operation, in float64, at sizes and cuts that do not divide."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.engine.sweeping import Whole, sweep, whole

CHANNELS = 6


def _full_size(small: torch.Tensor, scene: torch.Tensor) -> torch.Tensor:
    """Scores must have the scene's size: put the result into its corner by padding or cutting."""
    below, right = scene.shape[2] - small.shape[2], scene.shape[3] - small.shape[3]
    return F.pad(small, (0, max(0, right), 0, max(0, below)))[:, :, : scene.shape[2], : scene.shape[3]]


class Alone(nn.Module):
    """One layer under test between two row-wise ones, brought back to the scene's size by nearest rows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, CHANNELS, 1)
        self.layer = layer

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.layer(self.before(scene)), size=scene.shape[2:], mode="nearest")


def _convolution(**options: object) -> nn.Module:
    return nn.Conv2d(CHANNELS, CHANNELS, **options)  # type: ignore[arg-type]


LAYERS: dict[str, nn.Module] = {
    "conv 3x3": _convolution(kernel_size=3, padding=1),
    "conv 1x1": _convolution(kernel_size=1),
    "conv 7x7 stride 2": _convolution(kernel_size=7, stride=2, padding=3),
    "conv without padding": _convolution(kernel_size=3),
    "conv even kernel": _convolution(kernel_size=4, stride=4),
    "conv 2x2 same": _convolution(kernel_size=2, padding="same"),
    "conv 4x4 same dilated": _convolution(kernel_size=4, padding="same", dilation=3),
    "conv valid": _convolution(kernel_size=(5, 2), padding="valid"),
    "conv depthwise dilated": _convolution(kernel_size=3, padding=4, dilation=4, groups=CHANNELS),
    "conv tall": _convolution(kernel_size=(11, 1), padding=(5, 0), stride=(3, 1)),
    "conv wide padding": _convolution(kernel_size=3, padding=4),
    "max 3x3 stride 2": nn.MaxPool2d(3, 2, 1),
    "max 2x2": nn.MaxPool2d(2),
    "max ceil": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "max dilated": nn.MaxPool2d(3, 2, 1, dilation=2),
    "average 2x2": nn.AvgPool2d(2),
    "average padded": nn.AvgPool2d(3, 2, 1),
    "average without padding": nn.AvgPool2d(3, 1, 1, count_include_pad=False),
    "average ceil": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average ceil without padding": nn.AvgPool2d(5, 3, 2, ceil_mode=True, count_include_pad=False),
    "average divisor": nn.AvgPool2d(3, 2, 1, divisor_override=4),
    "batch norm": nn.BatchNorm2d(CHANNELS),
    "group norm": nn.GroupNorm(3, CHANNELS),
    "group norm without weights": nn.GroupNorm(2, CHANNELS, affine=False),
    "prelu": nn.PReLU(CHANNELS),
    "softmax over channels": nn.Softmax(dim=1),
    "constant pad": nn.ConstantPad2d((1, 2, 3, 4), 0.5),
    "asymmetric zero pad": nn.ZeroPad2d((0, 1, 0, 1)),
    "nearest x2": nn.Upsample(scale_factor=2),
    "nearest x3": nn.Upsample(scale_factor=3),
    "nearest odd size": nn.Upsample(size=(71, 45)),
    "nearest down": nn.Upsample(scale_factor=0.4),
    "bilinear x2": nn.Upsample(scale_factor=2, mode="bilinear"),
    "bilinear x2 aligned": nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "bilinear odd size": nn.Upsample(size=(71, 45), mode="bilinear"),
    "bilinear odd size aligned": nn.Upsample(size=(71, 45), mode="bilinear", align_corners=True),
    "bilinear down": nn.Upsample(scale_factor=0.3, mode="bilinear"),
    "bilinear x1.7": nn.Upsample(scale_factor=1.7, mode="bilinear"),
    "bilinear to one row aligned": nn.Upsample(size=(1, 5), mode="bilinear", align_corners=True),
}  # fmt: skip


@pytest.mark.parametrize("stripe", [1, 5, 16, 64])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_the_whole_forward(name: str, stripe: int) -> None:
    model = Alone(LAYERS[name]).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    scene = torch.randn(1, 3, 37, 29, dtype=torch.float64)
    result, plan, intervals = sweep(model, scene, stripe)
    torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-12)
    assert plan.fallback_ops == ()
    assert [start for start, _ in intervals[1:]] == [stop for _, stop in intervals[:-1]]
    assert (intervals[0][0], intervals[-1][1]) == (0, 37)


FUNCTIONS = {
    "elementwise": lambda x: torch.where(x > 0, x.sigmoid() * 2, x.exp() - 1).clamp(-0.5, 1.5),
    "gelu and hard swish": lambda x: F.gelu(x) + F.hardswish(x) * F.silu(x),
    "cat over channels": lambda x: torch.cat([x, x.roll(0, 1), F.avg_pool2d(x, 3, 1, 1)], dim=1),
    "stack and sum": lambda x: torch.stack([x, 2 * x, F.max_pool2d(x, 3, 1, 1)]).sum(dim=0),
    "mean over channels": lambda x: x - x.mean(dim=1, keepdim=True),
    "slice channels": lambda x: torch.cat([x[:, 1:], x[:, :1]], dim=1),
    "a tall constant": lambda x: x * torch.linspace(0, 1, x.shape[2], dtype=x.dtype).view(1, 1, -1, 1),
    "a wide constant": lambda x: x + torch.arange(x.shape[3], dtype=x.dtype),
    "layer norm over channels": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2),
    "linear over channels": lambda x: F.linear(x.movedim(1, -1), torch.eye(3, dtype=x.dtype) * 2).movedim(
        -1, 1
    ),
    "squeeze and excite": lambda x: x * F.adaptive_avg_pool2d(x, 1).sigmoid(),
    "mean over the scene": lambda x: x - x.mean(dim=(2, 3), keepdim=True),
    "mean without kept dimensions": lambda x: x * x.mean((2, 3))[:, :, None, None],
    "means of means": lambda x: (y := x - x.mean((2, 3), keepdim=True)) / (y * y).mean((2, 3), keepdim=True),
    "dropout in eval": lambda x: F.dropout(F.dropout2d(x, 0.3, False), 0.5, False),
    "in-place": lambda x: F.relu(x * 2, inplace=True).add_(x).clamp_(max=1),
    "reshape beside the rows": lambda x: x.reshape(1, 3, x.shape[2], -1, 1).squeeze(4) + 1,
}


@pytest.mark.parametrize("stripe", [1, 7, 64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_equals_the_whole_forward(name: str, stripe: int) -> None:
    model = Whole(FUNCTIONS[name]).eval()
    scene = torch.randn(1, 3, 23, 17)
    result, plan, _ = sweep(model, scene, stripe)
    torch.testing.assert_close(result, whole(model, scene), rtol=0, atol=1e-5)
    assert "aten::roll" in plan.fallback_ops if name == "cat over channels" else plan.fallback_ops == ()


@pytest.mark.parametrize("aligned", [True, False])
def test_interpolation_far_down_a_tall_scene_uses_the_kernels_coordinates(aligned: bool) -> None:
    """float64 coordinates would differ by 1e-3 here; the kernel computes them in float32."""
    model = Whole(
        lambda x: F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="bilinear", align_corners=aligned)
    ).eval()
    scene = torch.randn(1, 1, 7200, 8)
    result, _, _ = sweep(model, scene, 512)
    assert (result - whole(model, scene)).abs().max() <= 2e-6


def test_group_norm_statistics_survive_a_large_mean() -> None:
    """Sums of squares would cancel at mean 10,000; merged deviations do not."""
    model = nn.GroupNorm(1, 4).eval()
    scene = torch.randn(1, 4, 64, 64) + 1e4
    result, plan, _ = sweep(model, scene, 3)
    reference = whole(nn.GroupNorm(1, 4).double().eval(), scene.double())
    assert len(plan.phases) == 2
    assert (result.double() - reference).abs().max() < 5e-3


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("kernel", [3, 1])
def test_few_rows_are_computed_by_the_kernel_of_the_whole_scene(kernel: int) -> None:
    """torch switches kernels at 20480 elements; a stripe below must still give the bits of the whole."""
    model = nn.Sequential(
        nn.Conv2d(3, 64, 1), nn.Conv2d(64, 32, kernel, padding=kernel // 2, stride=1, dilation=1)
    ).eval()
    scene = torch.randn(1, 3, 64, 25).contiguous(memory_format=torch.channels_last)
    model = model.to(memory_format=torch.channels_last)
    result, _, _ = sweep(model, scene, 4)
    assert 64 * 25 * 6 < 20480 < 64 * 25 * 64
    assert torch.equal(result, whole(model, scene))
