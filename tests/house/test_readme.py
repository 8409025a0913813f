"""What the README claims and the repository can check."""

from __future__ import annotations

import json
import re

import pytest

from tests.house.sources import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
CARD = json.loads((REPOSITORY / "resources" / "models" / "kitsap-buildings.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "key"), [("IoU of buildings", "iou"), ("precision", "precision"), ("recall", "recall")]
)
def test_scores_are_those_of_the_card(words: str, key: str) -> None:
    (building,) = [entry for entry in CARD["score"]["classes"] if entry["id"] == 1]
    assert re.findall(rf"{words} (\d\.\d+)", README) == [f"{building[key]:.2f}"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_and_images_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not (REPOSITORY / target).is_file()] == []


def test_make_targets_exist() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    named = set(re.findall(r"`(?:\w+=\d )?make ([a-z-]+)", README)) | set(
        re.findall(r"^make ([a-z-]+)", README, re.MULTILINE)
    )
    assert {"demo", "test", "dev-install"} <= named <= targets
