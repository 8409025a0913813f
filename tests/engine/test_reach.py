"""Parts of a scene: what is needed for a window gives that window, and little more is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rest_backend.engine import SceneProgram, row_rule
from rest_backend.engine.rules.registry import _Registry
from rest_backend.engine.rules.rowwise import Pointwise, SameRows
from rest_backend.errors import InputError
from rest_backend.methods.verify import randomise
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network
from tests.engine.sweeping import Whole

Window = tuple[int, int, int, int]


class Crossed(nn.Module):
    """Long and wide kernels, dilation, strides, a skip, and the permutes of a channels-last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 8, (1, 7), padding=(0, 3))
        self.tall = nn.Conv2d(8, 8, (7, 1), padding=(3, 0), bias=False)
        self.down = nn.Conv2d(8, 8, 3, stride=(2, 4), padding=1)
        self.norm = nn.LayerNorm(8)
        self.spread = nn.Conv2d(8, 8, 3, padding=(2, 3), dilation=(2, 3))
        self.last = nn.Conv2d(16, 4, 3, padding="same")

    def forward(self, scene: torch.Tensor) -> torch.Tensor:
        early = F.gelu(self.tall(self.wide(scene)))
        low = self.norm(self.down(early).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        low = F.avg_pool2d(self.spread(low), 3, 1, 1, count_include_pad=False)
        up = F.interpolate(low, size=early.shape[2:], mode="bilinear")
        return self.last(torch.cat([early, up], dim=1))


def _plain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers).eval()


def _smp(encoder: str) -> nn.Module:
    return build_network(Architecture(encoder=encoder, decoder="unet"), 3, 4).eval()


# Network, rows and columns of its scene, rows and columns of one step of its strides.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], tuple[int, int]]] = {
    "bundled kind, tall": (lambda: _smp("tu-tf_efficientnet_lite0"), (1152, 32), (32, 32)),
    "bundled kind, wide": (lambda: _smp("tu-tf_efficientnet_lite0"), (32, 1152), (32, 32)),
    "resnet18 unet": (lambda: _smp("tu-resnet18"), (640, 64), (32, 32)),
    "crossed": (Crossed, (96, 140), (2, 4)),
    "pooled, odd scene": (
        lambda: _plain(
            nn.MaxPool2d(3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 2), nn.ZeroPad2d((1, 0, 1, 0))
        ),
        (42, 50),
        (2, 2),
    ),
    "moved down": (lambda: _plain(nn.ConstantPad2d((7, -7, 11, -11), 1.0)), (40, 33), (1, 1)),
    "padded far": (lambda: _plain(nn.ConstantPad2d(9, 1.0), nn.Conv2d(4, 2, 19)), (40, 33), (1, 1)),
}  # fmt: skip


@cache
def _case(name: str, dtype: torch.dtype = torch.float64) -> tuple[SceneProgram, torch.Tensor, torch.Tensor]:
    """Program, random scene, and the logits of the whole run."""
    make, size, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    randomise(model, torch.Generator().manual_seed(0))
    program = SceneProgram.capture(model.to(dtype), 3, *size)
    scene = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)
    return program, scene, _run(program, scene)


def _run(program: SceneProgram, scene: torch.Tensor) -> torch.Tensor:
    pieces: list[torch.Tensor] = []
    program.run(lambda start, stop: scene[:, :, start:stop], lambda _, rows: pieces.append(rows.clone()))
    return torch.cat(pieces, dim=2)


def _cut(image: torch.Tensor, window: Window, origin: tuple[int, int] = (0, 0)) -> torch.Tensor:
    column, row, width, height = window[0] - origin[0], window[1] - origin[1], *window[2:]
    return image[:, :, row : row + height, column : column + width]


def _windows(rows: int, columns: int) -> list[Window]:
    """In the middle, at each border and in each corner; odd places, odd sizes."""
    height, width = 5, 9
    tops, lefts = (0, rows // 2 - 3, rows - height), (0, columns // 2 + 1, columns - width)
    return [(left, top, width, height) for top in tops for left in lefts]


SLOW = ("bundled kind, tall", "bundled kind, wide", "resnet18 unet")


@pytest.mark.parametrize(
    ("name", "place"),
    [(name, place) for name in NETWORKS for place in ((0, 4, 8) if name in SLOW else range(9))],
)
def test_the_needed_part_alone_gives_the_window(name: str, place: int) -> None:
    program, scene, logits = _case(name)
    window = _windows(*scene.shape[2:])[place]
    part = program.needed_window(window)
    assert part is not None
    alone = _run(program.part(part[3], part[2]), _cut(scene, part))
    torch.testing.assert_close(_cut(alone, window, part[:2]), _cut(logits, window), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("bundled kind, wide", (501, 3, 77, 25)),
        ("resnet18 unet", (7, 290, 55, 83)),
        ("crossed", (20, 31, 70, 33)),
    ],
)
def test_classes_are_the_same_in_float32(name: str, window: Window) -> None:
    program, scene, logits = _case(name, torch.float32)
    part = program.needed_window(window)
    assert part is not None
    alone = _run(program.part(part[3], part[2]), _cut(scene, part))
    assert torch.equal(_cut(alone, window, part[:2]).argmax(1), _cut(logits, window).argmax(1))


@pytest.mark.parametrize(
    "name", sorted(NETWORKS.keys() - {"moved down"})
)  # whose parts must also hold the window
def test_the_part_is_no_larger_than_a_step_beyond_what_is_seen(name: str) -> None:
    """What the window's logits truly depend on, by their gradient."""
    program, scene, _ = _case(name)
    make, (rows, columns), (tall, wide) = NETWORKS[name]
    model = make().double().eval()
    for value in model.parameters():
        value.data.fill_(0.1)  # nothing cancels, nothing is cut off
    window: Window = (columns // 2 - 3, rows // 2 + 1, 5, 3)
    seen = torch.ones_like(scene, requires_grad=True)
    _cut(_without_dead_ends(model)(seen), window).sum().backward()
    assert seen.grad is not None
    touched = seen.grad[0].abs().amax(0) > 0
    down, across = (torch.nonzero(touched.any(dim)).flatten() for dim in (1, 0))
    part = program.needed_window(window)
    assert part is not None
    for start, size, used, step, whole in (
        (part[1], part[3], down, tall, rows),
        (part[0], part[2], across, wide, columns),
    ):
        first, last = int(used[0]), int(used[-1]) + 1
        assert 0 <= first - start < step
        assert 0 <= start + size - last < step
        assert start % step == 0
        assert (whole - start - size) % step == 0


def _without_dead_ends(model: nn.Module) -> nn.Module:
    """Pools that look at one pixel of a window, and activations that stop some, let all through."""
    for name, child in model.named_children():
        if isinstance(child, nn.MaxPool2d):
            pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
            setattr(model, name, pool)
        elif isinstance(child, (nn.ReLU, nn.ReLU6, nn.Hardtanh)):
            setattr(model, name, nn.Identity())
        elif isinstance(child, nn.BatchNorm2d):
            child.running_mean.zero_()
            child.running_var.fill_(100.0)
            child.weight.data.fill_(1.0)
            if hasattr(child, "act"):  # timm's norm and activation in one
                child.act = nn.Identity()
        else:
            _without_dead_ends(child)
    return model


BOUNDLESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bilinear, corners aligned": lambda x: F.interpolate(
        F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=True
    ),
    "a factor that is no whole number": lambda x: F.interpolate(
        F.interpolate(x, scale_factor=0.75), size=x.shape[2:], mode="bilinear"
    ),
    "mean of the scene": lambda x: x - x.mean((2, 3), keepdim=True),
    "an operation without a rule": lambda x: x.cumsum(dim=2),
    "an adaptive pool": lambda x: F.interpolate(F.adaptive_avg_pool2d(x, 8), size=x.shape[2:]),
    "a constant as tall as the scene": lambda x: x * torch.arange(x.shape[2])[:, None],
    "a size that stays": lambda x: F.interpolate(F.interpolate(x, size=(128, 128)), size=x.shape[2:]),
    "a number made of the size": lambda x: x * (1.0 / x.shape[2]),
    "a tensor made of the size": lambda x: x + torch.tensor(float(x.shape[3])),
    "a size that is refused": lambda x: x if x.shape[2] == 64 else x.reshape(7, 7, 7),
}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDLESS)
def test_what_depends_on_the_place_or_the_size_needs_the_whole_scene(name: str) -> None:
    program = SceneProgram.capture(Whole(BOUNDLESS[name]).eval(), 3, 64, 64)
    assert program.needed_window((20, 20, 8, 8)) is None


def test_group_norm_needs_the_whole_scene() -> None:
    program = SceneProgram.capture(_plain(nn.GroupNorm(2, 4)), 3, 64, 64)
    assert program.needed_window((20, 20, 8, 8)) is None


ALL_COLUMNS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax along the columns": lambda x: F.avg_pool2d(x, 3, 1, 1).softmax(dim=3),
    "mean of each row": lambda x: x - F.max_pool2d(x, 3, 1, 1).mean(dim=3, keepdim=True),
    "a constant as wide as the scene": lambda x: F.max_pool2d(x, 3, 1, 1) + torch.arange(x.shape[3]),
    "columns cut and joined": lambda x: F.avg_pool2d(torch.cat([x[..., 1:], x[..., :1]], dim=3), 3, 1, 1),
}


@pytest.mark.parametrize("name", ALL_COLUMNS)
def test_a_part_is_as_wide_as_the_scene_where_columns_are_not_alike(name: str) -> None:
    function = ALL_COLUMNS[name]
    program = SceneProgram.capture(Whole(function).eval(), 3, 40, 24)
    assert program.needed_window((10, 20, 3, 4)) == (0, 19, 24, 6)
    scene = torch.randn(1, 3, 40, 24)
    alone = _run(program.part(6, 24), scene[:, :, 19:25])
    torch.testing.assert_close(alone[:, :, 1:5], function(scene)[:, :, 20:24], rtol=0, atol=1e-6)


def test_a_rule_of_a_user_bounds_nothing_unless_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Registry, "rules", {kind: list(rules) for kind, rules in _Registry.rules.items()})

    class Mine(SameRows):
        @classmethod
        def bind(cls, operation, layouts):  # type: ignore[no-untyped-def]
            bound = Pointwise.bind(operation, layouts)
            return bound and cls(operation, bound.layout, bound.inputs)

    row_rule("aten::tanh")(Mine)
    model = Whole(torch.tanh).eval()
    assert SceneProgram.capture(model, 3, 30, 20).needed_window((4, 5, 6, 7)) is None
    Mine.shift = (1, 1)
    assert SceneProgram.capture(model, 3, 30, 20).needed_window((4, 5, 6, 7)) == (4, 5, 6, 7)


@pytest.mark.parametrize("window", [(0, 0, 0, 5), (-1, 0, 5, 5), (0, 26, 5, 5), (16, 0, 5, 5)])
def test_a_window_outside_the_scene_is_refused(window: Window) -> None:
    program = SceneProgram.capture(_plain(), 3, 30, 20)
    with pytest.raises(InputError) as caught:
        program.needed_window(window)
    assert caught.value.code == "E_WINDOW"
