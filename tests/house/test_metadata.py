"""metadata.txt, by the rules of QGIS's plugin site."""

from __future__ import annotations

import configparser
import re

import pytest

import rest_backend
from tests.house.sources import REPOSITORY

REQUIRED = (
    "name",
    "description",
    "version",
    "qgisMinimumVersion",
    "author",
    "email",
    "about",
    "tracker",
    "repository",
)


@pytest.fixture(scope="module")
def metadata() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # QGIS's keys have capitals
    parser.read(REPOSITORY / "metadata.txt", encoding="utf-8")
    return parser["general"]


@pytest.mark.parametrize("key", REQUIRED)
def test_required_keys(metadata: configparser.SectionProxy, key: str) -> None:
    assert metadata[key].strip()


def test_versions_agree_and_are_numbers(metadata: configparser.SectionProxy) -> None:
    assert metadata["version"] == rest_backend.__version__
    # The site finds the latest version by comparing strings, so no part may reach 10.
    assert re.fullmatch(r"\d\.\d\.\d", metadata["version"])


def test_range_of_qgis(metadata: configparser.SectionProxy) -> None:
    assert metadata["qgisMinimumVersion"] == "3.22"
    assert metadata["qgisMaximumVersion"] == "4.99"
    assert "supportsQt6" not in metadata


def test_processing_provider_is_declared(metadata: configparser.SectionProxy) -> None:
    """Without it qgis_process does not load the plugin."""
    assert metadata["hasProcessingProvider"] == "yes"


def test_about_names_the_external_dependencies(metadata: configparser.SectionProxy) -> None:
    assert "pyzmq" in metadata["about"]
    assert "rest-backend" in metadata["about"]
    assert not re.search(r"<[a-zA-Z/]", metadata["about"] + metadata["description"])


def test_icon_is_a_png_of_the_repository(metadata: configparser.SectionProxy) -> None:
    icon = REPOSITORY / "resources" / metadata["icon"]
    assert icon.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
