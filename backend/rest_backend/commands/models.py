"""``rest-backend models``: what is installed."""

from __future__ import annotations

from typing import Any

import click

from rest_backend.commands.printing import json_option, print_json


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the installed models, the bundled ones first."""
    from rest_backend.models.zoo import scan_models, summary

    usable, broken = scan_models()
    found = [summary(model) for model in usable]
    for model in broken:
        click.echo(f"left out {model.id}: {model.error.code}: {model.error.message}", err=True)
    if as_json:
        print_json({"models": found})
        return
    for entry in found:
        bands = ", ".join(band["name"] for band in entry["bands"])
        classes = ", ".join(item["name"] for item in entry["classes"])
        click.echo(
            f"{entry['id']}  {entry['name']}\n"
            f"    bands {bands}; classes {classes}; licence {entry['licence']}\n    {_score_line(entry)}"
        )


def _score_line(entry: dict[str, Any]) -> str:
    """The test score of a model's summary, for people."""
    if not entry["score"]:
        return "no score in its card"
    names = {item["id"]: item["name"] for item in entry["classes"]}
    scored = [item for item in entry["score"]["classes"] if item["iou"] is not None]
    return "test IoU " + ", ".join(f"{names[item['id']]} {item['iou']:.2f}" for item in scored)
