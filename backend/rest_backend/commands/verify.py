"""``rest-backend verify``: the engine against the plain whole forward."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from rest_backend.commands.printing import json_option, print_json


@click.command()
@click.option("--encoder", required=True, help="tu-NAME of timm, or mit_b0 to mit_b5.")
@click.option("--decoder", required=True, help="Decoder of segmentation_models_pytorch.")
@click.option("--bands", default=3, show_default=True)
@click.option("--classes", default=6, show_default=True)
@click.option("--height", default=512, show_default=True, help="Scene rows in pixels.")
@click.option("--width", default=512, show_default=True, help="Scene columns in pixels.")
@click.option("--stripe", type=int, help="Scene rows per stripe; without it the engine chooses.")
@click.option("--dtype", default="float32", show_default=True, help="float32 or float64.")
@click.option("--seed", default=0, show_default=True)
@json_option
def verify(as_json: bool, **options: Any) -> None:
    """Compare the engine with the plain whole forward."""
    from rest_backend.methods.verify import VerifyRequest
    from rest_backend.methods.verify import verify as run

    summary = run(VerifyRequest(**options))
    if as_json:
        print_json(asdict(summary))
        return
    click.echo(
        f"{summary.encoder} + {summary.decoder}, {summary.width} x {summary.height}, {summary.dtype}:"
        f" largest difference {summary.max_rel_diff:.1e} of the logits' deviation,"
        f" {summary.label_flips} of {summary.pixels:,} labels differ;"
        f" {summary.phases} phase(s), whole operations: {', '.join(summary.fallback_ops) or 'none'}",
        err=True,
    )
