"""Texts of options: what they mean, and what is refused with a sentence that shows how to write it."""

from __future__ import annotations

import pytest

from rest_backend.commands.options import parse_bands, parse_memory, parse_resolution, parse_window
from rest_backend.errors import InputError


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2GB", 2 * 10**9), ("800 mb", 8 * 10**8), ("1.5GB", 1_500_000_000), ("12345B", 12345)],
)
def test_memory_is_decimal(text: str, amount: int) -> None:
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0GB", "2GiB", "2G", "1e9", "2"])
def test_an_unclear_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="2GB"):
        parse_memory(text)


def test_a_window_is_four_numbers() -> None:
    assert parse_window(None) is None
    assert parse_window("0,512, 1024 ,768") == (0, 512, 1024, 768)


@pytest.mark.parametrize(
    "text",
    ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,3,0", "-1,2,3,4", "1.5,2,3,4", "1;2;3;4", "9999999999,0,1,1"],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="0,512,1024,1024") as caught:
        parse_window(text)
    assert caught.value.code == "E_WINDOW_OPTION"


def test_bands_are_numbers_in_order() -> None:
    assert parse_bands(None) == ()
    assert parse_bands("4,3, 2") == (4, 3, 2)
    assert parse_bands("7") == (7,)


@pytest.mark.parametrize(
    "text", ["", "0,1", "red,green", "4 3 2", "4,,2", "-1", "65537", ",".join(["1"] * 1025)]
)
def test_what_are_no_bands_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="4,3,2") as caught:
        parse_bands(text)
    assert caught.value.code == "E_BANDS_OPTION"


@pytest.mark.parametrize(("text", "metres"), [("0.3", 0.3), ("10", 10.0), (".5", 0.5), ("2 m", 2.0)])
def test_a_resolution_is_in_metres(text: str, metres: float) -> None:
    assert parse_resolution(None) is None
    assert parse_resolution(text) == metres


@pytest.mark.parametrize("text", ["", "0", "0.0", "-1", "10cm", "nan", "inf", "1e3", "0,3"])
def test_what_is_no_resolution_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="metres per pixel") as caught:
        parse_resolution(text)
    assert caught.value.code == "E_RESOLUTION_OPTION"
