"""Speed of the sweep against the plain whole forward and against overlapped tiles.

    python bench/sweep.py [--encoder tu-resnet18] [--decoder fpn] [--size 2048] [--pairs 5] [--stripe N]

The three are run in turn in one process, channels last, and the ratios are taken
pair by pair: the machine's own drift cancels. Tiles are 512 pixels with 50 %
overlap, their logits blended by a linear ramp, as plugins for desktop GIS do it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from rest_backend.engine import SceneProgram
from rest_backend.methods.verify import randomise
from rest_backend.models.card import Architecture
from rest_backend.models.network import build_network

TILE, STEP = 512, 256  # pixels


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = build_network(Architecture(encoder=options.encoder, decoder=options.decoder), 3, 6).eval()
    randomise(model, torch.Generator().manual_seed(0))
    model = model.to(device, memory_format=torch.channels_last)
    scene = (
        torch.randn(1, 3, options.size, options.size).contiguous(memory_format=torch.channels_last).to(device)
    )
    program = SceneProgram.capture(model.cpu(), 3, options.size, options.size)
    plan = program.plan(device=device, stripe=options.stripe)
    model.to(device)
    print(f"{options.encoder} + {options.decoder}, {options.size} x {options.size},"
          f" {options.threads} threads, {_device_name(device)}, torch {torch.__version__}")  # fmt: skip
    print(plan)
    labels = torch.empty(options.size, options.size, dtype=torch.uint8)

    def write(start: int, logits: torch.Tensor) -> None:
        labels[start : start + logits.shape[2]] = logits.argmax(1)[0].to("cpu", torch.uint8)

    runs: dict[str, Callable[[], object]] = {
        "sweep": lambda: program.run(lambda a, b: scene[:, :, a:b], write, plan),
        "whole": lambda: model(scene).argmax(1).to("cpu", torch.uint8),
        "tiles": lambda: tiles(model, scene, 6),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for pair in range(options.pairs + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                if pair:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
    for name, values in seconds.items():
        print(f"{name:6} median {statistics.median(values):7.3f} s  ({min(values):.3f} .. {max(values):.3f})")
    for name, of in (("sweep", "whole"), ("tiles", "sweep")):
        ratios = [a / b for a, b in zip(seconds[name], seconds[of], strict=True)]
        print(
            f"{name} / {of}: median {statistics.median(ratios):.2f}  ({min(ratios):.2f} .. {max(ratios):.2f})"
        )


def tiles(model: torch.nn.Module, scene: torch.Tensor, classes: int) -> torch.Tensor:
    """Labels from 512-pixel tiles with 50 % overlap, blended by a linear ramp."""
    height, width = scene.shape[2:]
    scores = torch.zeros(1, classes, height, width, device=scene.device)
    total = torch.zeros(1, 1, height, width, device=scene.device)
    ramp = torch.minimum(torch.arange(1, TILE + 1), torch.arange(TILE, 0, -1)).float().to(scene.device)
    weight = ramp[:, None] * ramp[None, :]
    for row in _starts(height):
        for column in _starts(width):
            window = (..., slice(row, row + TILE), slice(column, column + TILE))
            scores[window] += model(scene[window]) * weight
            total[window] += weight
    return (scores / total).argmax(1).to("cpu", torch.uint8)


def _starts(size: int) -> list[int]:
    return [*range(0, size - TILE, STEP), size - TILE]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="tu-resnet18")
    parser.add_argument("--decoder", default="fpn")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--stripe", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
