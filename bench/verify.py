"""Exactness: the engine against the plain whole forward, over networks, sizes and stripes.

    python bench/verify.py [--quick]

One line per run. Bounds: float32 differences at most 1e-4 of the logits' standard
deviation, flipped labels at most max(2, 5e-6 of the pixels) and only where the two best
classes are as close as rounding; float64 at most 1e-9 and no flip. The columns "plain"
hold what the plain forward differs from itself by between PyTorch's two memory
formats. Exits with 1 when a bound is broken or an operation ran whole.
"""

from __future__ import annotations

import argparse
import itertools
import sys

from rest_backend.methods.verify import VerifyRequest, VerifySummary, verify

NETWORKS = (("tu-resnet18", "fpn"), ("tu-mobilenetv2_100", "fpn"), ("tu-tf_efficientnet_lite0", "unet"))
SIZES = ((333, 277), (1001, 777), (640, 1537))  # rows, columns
STRIPES = (32, 160)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the smallest size only")
    sizes = SIZES[:1] if parser.parse_args().quick else SIZES
    head = (
        "network",
        "rows x columns",
        "stripe",
        "dtype",
        "max rel diff",
        "flips",
        "beyond",
        "plain: rel diff",
    )
    print("{:32} {:>14} {:>6} {:>8} {:>12} {:>5} {:>6} {:>15} flips  whole ops".format(*head))
    broken = 0
    for network, size, stripe, dtype in itertools.product(NETWORKS, sizes, STRIPES, ("float32", "float64")):
        summary = verify(VerifyRequest(*network, height=size[0], width=size[1], stripe=stripe, dtype=dtype))
        good = _within_bounds(summary)
        broken += not good
        print(_line(summary) + ("" if good else "  BROKEN"), flush=True)
    sys.exit(1 if broken else 0)


def _line(summary: VerifySummary) -> str:
    name, size = f"{summary.encoder} + {summary.decoder}", f"{summary.height} x {summary.width}"
    plain = " " * 21
    if summary.plain_rel_diff is not None:
        plain = f"{summary.plain_rel_diff:15.1e} {summary.plain_flips:5}"
    return (
        f"{name:32} {size:>14} {summary.stripe:6} {summary.dtype:>8} {summary.max_rel_diff:12.1e}"
        f" {summary.label_flips:5} {summary.flips_beyond_margin:6} {plain}"
        f"  {', '.join(summary.fallback_ops) or 'none'}"
    )


def _within_bounds(summary: VerifySummary) -> bool:
    single = summary.dtype == "float32"
    flips = max(2, 5e-6 * summary.pixels) if single else 0
    return (
        summary.max_rel_diff <= (1e-4 if single else 1e-9)
        and summary.label_flips <= flips
        and summary.flips_beyond_margin == 0
        and not summary.fallback_ops
    )


if __name__ == "__main__":
    main()
