"""Verify: the engine against the plain whole forward, on the same random scene.

Random weights would hide errors behind zeros and constants, so everything that has
a neutral start value is randomised, and the last bias is centred until every class
wins at least 5 % of the pixels: otherwise no label could flip.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from rest_backend.engine import SceneProgram
from rest_backend.errors import InputError, ResourceError
from rest_backend.methods.memory import (
    available_bytes,
    memory_errors,
    peak_bytes,
    reset_peak,
    resident_bytes,
)
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network, minimum_size, required_multiple

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_SMALLEST_SHARE = 0.05
_CENTRING_STEPS = 200


@dataclass(frozen=True)
class VerifyRequest:
    """What to compare.

    Attributes:
        encoder: Encoder by name, such as ``tu-resnet18``.
        decoder: Decoder by name, such as ``fpn``.
        bands: Input bands.
        classes: Output classes.
        height: Scene rows in pixels, any number.
        width: Scene columns in pixels, any number.
        stripe: Scene rows per stripe; None: the engine's choice.
        dtype: ``float32`` or ``float64``.
        seed: Of weights and scene.
    """

    encoder: str
    decoder: str
    bands: int = 3
    classes: int = 6
    height: int = 512
    width: int = 512
    stripe: int | None = None
    dtype: str = "float32"
    seed: int = 0


@dataclass(frozen=True)
class VerifySummary:
    """How engine and whole forward differ, as ``rest-backend verify --json`` prints it.

    Attributes:
        encoder: As asked.
        decoder: As asked.
        dtype: As asked.
        max_abs_diff: Largest difference of a logit.
        logits_std: Standard deviation of the reference's logits.
        max_rel_diff: ``max_abs_diff / logits_std``.
        label_flips: Pixels whose class differs.
        flips_beyond_margin: Of these, pixels where the reference's two best classes are
            farther apart than ``2 * max_abs_diff``; rounding cannot explain those.
        pixels: Pixels compared.
        smallest_class_share: Share of the rarest class in the reference.
        time_ratio: Seconds of the sweep over seconds of the whole forward, single runs.
        memory_ratio: Peak memory of the sweep over that of the whole forward; None where
            the system cannot tell.
        plain_rel_diff: As ``max_rel_diff``, of the whole forward in PyTorch's default memory format against
            the reference, which is channels last: what rounding alone does. None for float64.
        plain_flips: Labels that differ between these two.
        phases: Sweeps over the scene.
        fallback_ops: Operations that ran whole for want of a row rule.
        stripe: Scene rows per stripe.
        height: Scene rows.
        width: Scene columns.
    """

    encoder: str
    decoder: str
    dtype: str
    max_abs_diff: float
    logits_std: float
    max_rel_diff: float
    label_flips: int
    flips_beyond_margin: int
    pixels: int
    smallest_class_share: float
    time_ratio: float
    memory_ratio: float | None
    plain_rel_diff: float | None
    plain_flips: int | None
    phases: int
    fallback_ops: list[str]
    stripe: int
    height: int
    width: int


def verify(request: VerifyRequest) -> VerifySummary:
    """Run engine and whole forward on the same scene and compare.

    Args:
        request: Network, scene size and precision.

    Returns:
        The differences.

    Raises:
        InputError: ``E_DTYPE``, ``E_SIZE``, ``E_STRIPE``, ``E_NOT_FINITE``, or a code of ``build_network``
            or ``capture``.
        ResourceError: ``E_MEMORY``.
    """
    _check(request)
    with memory_errors("compare with the whole forward"):
        return _verify(request)


def _verify(request: VerifyRequest) -> VerifySummary:
    dtype = _DTYPES[request.dtype]
    architecture = Architecture(encoder=request.encoder, decoder=request.decoder)
    multiple, smallest = required_multiple(architecture), minimum_size(architecture)
    height, width = (max(smallest, -(-n // multiple) * multiple) for n in (request.height, request.width))
    torch.manual_seed(request.seed)
    model = build_network(architecture, request.bands, request.classes, height, width).eval().to(dtype)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(request.seed)
    randomise(model, generator)
    scene = torch.zeros(1, request.bands, height, width, dtype=dtype)
    scene[:, :, : request.height, : request.width] = torch.randn(
        1, request.bands, request.height, request.width, dtype=dtype, generator=generator
    )
    scene = scene.contiguous(memory_format=torch.channels_last)
    crop = (slice(None), slice(None), slice(0, request.height), slice(0, request.width))
    with torch.inference_mode():
        centre_classes(model, model(scene)[crop])
        before = _start_measuring()
        reference = model(scene)
        whole_seconds, whole_bytes = _measured(before)
    plain = _plain_differences(model, scene, reference, crop) if dtype == torch.float32 else (None, None)
    program = SceneProgram.capture(model, request.bands, height, width)
    plan = program.plan(stripe=request.stripe)
    swept = torch.empty_like(reference)
    before = _start_measuring()
    program.run(lambda a, b: scene[:, :, a:b], lambda a, rows: _put(swept, a, rows), plan)
    sweep_seconds, sweep_bytes = _measured(before)
    return _compare(
        request,
        reference[crop],
        swept[crop],
        time_ratio=sweep_seconds / whole_seconds,
        memory_ratio=sweep_bytes / whole_bytes if whole_bytes > 0 else None,
        plain=plain,
        phases=len(plan.phases),
        fallback_ops=list(plan.fallback_ops),
        stripe=plan.stripe,
    )


def _plain_differences(
    model: nn.Module, scene: torch.Tensor, reference: torch.Tensor, crop: tuple[slice, ...]
) -> tuple[float, int]:
    """How far the whole forward differs from itself in the other memory format."""
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with torch.inference_mode():
        other = model(scene.contiguous())[crop]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mine = reference[crop]
    flips = int((mine.argmax(dim=1) != other.argmax(dim=1)).sum())
    return float((mine - other).abs().max()) / _deviation(mine), flips


def _deviation(logits: torch.Tensor) -> float:
    return float(logits.std()) if logits.numel() > 1 else 1.0


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Move everything that starts neutral away from it, in place.

    BatchNorm: mean N(0, 0.3), variance U(0.5, 2). All norms: scale U(0.5, 1.5), bias
    N(0, 0.3). Layer scales U(0.5, 1.5) and position tables N(0, 0.3).
    """
    inside_norm: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
            if isinstance(mean, torch.Tensor) and isinstance(variance, torch.Tensor):
                mean.normal_(0.0, 0.3, generator=generator)
                variance.uniform_(0.5, 2.0, generator=generator)
            if "norm" in type(module).__name__.lower():
                for name, parameter in module.named_parameters(recurse=False):
                    inside_norm.add(id(parameter))
                    if name == "weight":
                        parameter.uniform_(0.5, 1.5, generator=generator)
                    else:
                        parameter.normal_(0.0, 0.3, generator=generator)
        for name, parameter in model.named_parameters():
            leaf = name.rpartition(".")[2]
            if id(parameter) in inside_norm:
                continue
            if leaf.startswith(("gamma", "layer_scale", "ls")) or ".ls" in name:
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif "pos_embed" in name or "relative_position" in name or leaf == "cls_token":
                parameter.normal_(0.0, 0.3, generator=generator)


def centre_classes(model: nn.Module, logits: torch.Tensor) -> None:
    """Shift the last bias until every class wins at least 5 % of the pixels.

    Args:
        model: Its last convolution has one output per class.
        logits: ``(1, classes, height, width)`` of the model as it is.

    Raises:
        InputError: ``E_CLASSES`` when the shares cannot be reached on this scene.
    """
    classes = logits.shape[1]
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.out_channels == classes][-1]
    flat = logits[0].reshape(classes, -1)
    shift = -flat.mean(dim=1)
    spread = flat.std(dim=1).mean()
    wanted = min(_SMALLEST_SHARE, 0.5 / classes)
    for step in range(_CENTRING_STEPS):
        labels = (flat + shift[:, None]).argmax(dim=0)
        shares = torch.bincount(labels, minlength=classes) / labels.numel()
        if float(shares.min()) >= wanted:
            break
        shift = shift + spread * (1.0 / classes - shares) / (1.0 + step / 20)
    else:
        raise InputError(
            "E_CLASSES", "No bias gives every class 5 % of this scene; take a larger scene or fewer classes."
        )
    if last.bias is None:
        last.bias = nn.Parameter(torch.zeros(classes, dtype=logits.dtype))
    with torch.no_grad():
        last.bias += shift


def _check(request: VerifyRequest) -> None:
    if request.dtype not in _DTYPES:
        raise InputError("E_DTYPE", f"The precision is float32 or float64, not {request.dtype!r}.")
    sizes = (request.bands, request.classes, request.height, request.width)
    if (
        min(sizes) < 1
        or max(request.height, request.width) > 65536
        or request.bands > 512
        or request.classes > 255
    ):
        raise InputError(
            "E_SIZE", "A scene has 1 to 65536 rows and columns, 1 to 512 bands, 1 to 255 classes."
        )
    values = request.height * request.width * (2 * request.bands + 3 * request.classes)
    needed, free = values * _DTYPES[request.dtype].itemsize, available_bytes()
    if needed > free:
        raise ResourceError(
            "E_MEMORY",
            f"The scene and the logits of both forwards alone take {needed / 1e9:.1f} GB;"
            f" {free / 1e9:.1f} GB are free. Take a smaller scene.",
        )


def _put(target: torch.Tensor, start: int, rows: torch.Tensor) -> None:
    target[:, :, start : start + rows.shape[2]] = rows


def _start_measuring() -> tuple[float, int]:
    reset_peak()
    return time.perf_counter(), resident_bytes()


def _measured(before: tuple[float, int]) -> tuple[float, int]:
    """Seconds passed and bytes the peak rose."""
    return time.perf_counter() - before[0], max(0, peak_bytes() - before[1])


def _compare(
    request: VerifyRequest,
    reference: torch.Tensor,
    swept: torch.Tensor,
    *,
    time_ratio: float,
    memory_ratio: float | None,
    plain: tuple[float, int] | tuple[None, None],
    phases: int,
    fallback_ops: list[str],
    stripe: int,
) -> VerifySummary:
    difference = float((reference - swept).abs().max())
    if not (math.isfinite(difference) and bool(reference.isfinite().all())):
        raise InputError("E_NOT_FINITE", "With these random weights the logits overflow: try another seed.")
    deviation = _deviation(reference)
    labels = reference.argmax(dim=1)
    flipped = labels != swept.argmax(dim=1)
    best = reference.topk(min(2, request.classes), dim=1).values
    margin = best[:, 0] - best[:, -1]
    return VerifySummary(
        encoder=request.encoder,
        decoder=request.decoder,
        dtype=request.dtype,
        max_abs_diff=difference,
        logits_std=deviation,
        max_rel_diff=difference / deviation,
        label_flips=int(flipped.sum()),
        flips_beyond_margin=int((flipped & (margin > 2 * difference)).sum()),
        pixels=labels.numel(),
        smallest_class_share=float(torch.bincount(labels.flatten(), minlength=request.classes).min())
        / labels.numel(),
        time_ratio=time_ratio,
        memory_ratio=memory_ratio,
        plain_rel_diff=plain[0],
        plain_flips=plain[1],
        phases=phases,
        fallback_ops=fallback_ops,
        stripe=stripe,
        height=request.height,
        width=request.width,
    )
