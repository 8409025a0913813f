"""Plugin and backend, which share no code, name the same folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from rest_backend.daemon.home import home as daemon_home
from rest_backend.models.zoo import models_folder
from rest_qgis.install.folder import home_folder as client_home


def test_home_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REST_HOME", raising=False)
    assert daemon_home() == client_home()
    assert models_folder() == client_home() / "models"


def test_home_by_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REST_HOME", str(tmp_path))
    assert daemon_home() == client_home() == tmp_path
    assert models_folder() == tmp_path / "models"


def test_home_by_variable_of_the_desktop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REST_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert daemon_home() == client_home()
