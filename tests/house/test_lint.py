"""The linters that take seconds, so that no change goes in with their findings; `make lint` runs all."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.sources import REPOSITORY


@pytest.mark.parametrize("arguments", [["ruff", "check", "."], ["mypy"]], ids=["ruff", "mypy --strict"])
def test_linter_finds_nothing(arguments: list[str]) -> None:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
