"""Unmodified encoders and decoders: the engine equals the plain whole forward."""

from __future__ import annotations

import pytest

from rest_backend.methods.verify import VerifyRequest, verify

PAIRS = [("tu-resnet18", "fpn"), ("tu-mobilenetv2_100", "fpn"), ("tu-tf_efficientnet_lite0", "unet")]


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@pytest.mark.parametrize(
    ("dtype", "bound", "stripe"), [("float32", 1e-4, 32), ("float32", 1e-4, 160), ("float64", 1e-9, 32)]
)
def test_engine_equals_the_whole_forward(
    encoder: str, decoder: str, dtype: str, bound: float, stripe: int
) -> None:
    summary = verify(VerifyRequest(encoder, decoder, height=333, width=149, stripe=stripe, dtype=dtype))
    assert summary.max_rel_diff <= bound
    assert summary.label_flips <= (max(2, 5e-6 * summary.pixels) if dtype == "float32" else 0)
    assert summary.flips_beyond_margin == 0
    assert summary.fallback_ops == []
    assert summary.smallest_class_share >= 0.05
    assert summary.stripe == stripe
    assert summary.pixels == 333 * 149


@pytest.mark.parametrize(
    ("encoder", "decoder", "whole"),
    [
        ("tu-resnet18", "linknet", "aten::conv_transpose2d"),
        ("mit_b0", "segformer", "aten::softmax"),
        ("tu-resnet18", "pspnet", "aten::adaptive_avg_pool2d"),
    ],
)
def test_operations_without_a_rule_are_exact_and_named(encoder: str, decoder: str, whole: str) -> None:
    summary = verify(VerifyRequest(encoder, decoder, height=96, width=130, stripe=17, dtype="float64"))
    assert summary.max_rel_diff <= 1e-9
    assert summary.label_flips == 0
    assert whole in summary.fallback_ops


def test_five_bands_and_two_classes() -> None:
    summary = verify(VerifyRequest("tu-resnet18", "unet", bands=5, classes=2, height=65, width=70, stripe=8))
    assert summary.max_rel_diff <= 1e-4
    assert summary.fallback_ops == []
