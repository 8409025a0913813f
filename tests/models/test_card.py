from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

from rest_backend.errors import InputError
from rest_backend.models.card import CARD_LIMIT, read_card, weights_path


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_card(path)
    assert str(path) in caught.value.message
    return caught.value


def test_a_card_is_read_with_its_defaults(card, write_card):
    read = read_card(write_card(card))
    assert read.id == "small"
    assert [band.name for band in read.bands] == ["red", "green", "blue", "nir"]
    assert [entry.id for entry in read.classes] == [0, 7, 254]
    assert read.architecture.parameters == {"decoder_channels": [16, 8, 8, 8, 8]}
    assert read.bands[0].scale == 1.0
    assert read.bands[0].wavelength_nm is None
    assert read.score is None


def test_fields_of_a_later_release_are_passed_over(card, write_card):
    card["thumbnail"] = "small.png"
    assert read_card(write_card(card)).id == "small"


def test_weights_lie_beside_the_card():
    assert weights_path(Path("folder/a.b.json")) == Path("folder/a.b.safetensors")


def test_missing_card(tmp_path):
    assert refused(tmp_path / "none.json").code == "E_CARD_MISSING"


def test_a_folder_is_no_card(tmp_path):
    assert refused(tmp_path).code == "E_CARD_MISSING"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    assert refused(tmp_path / "pipe.json").code == "E_CARD_INVALID"


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00\x01", b"\xff\xfe{}", "[" * 100_000])
def test_what_is_not_a_card_is_refused(content, write_card):
    assert refused(write_card(content)).code == "E_CARD_INVALID"


def test_a_huge_file_is_refused_unread(write_card):
    assert refused(write_card(" " * (CARD_LIMIT + 1))).code == "E_CARD_INVALID"


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        (("format",), 2, "format"),
        (("id",), "../../etc", "id"),
        (("id",), "", "id"),
        (("architecture", "encoder"), 5, "architecture.encoder"),
        (("architecture", "parameters"), {"decoder_channels": [10**6]}, "architecture.parameters"),
        (("bands",), [], "bands"),
        (("bands", 1, "scale"), 0, "bands[1].scale"),
        (("ground_resolution_m", "minimum"), -1, "ground_resolution_m.minimum"),
        (("normalisation", "method"), "guess", "normalisation.method"),
        (("classes", 2, "color"), "red", "classes[2].color"),
        (("classes", 0, "id"), "zero", "classes[0].id"),
        (("sha256",), "abc", "sha256"),
    ],
)
def test_the_sentence_names_the_field(card, write_card, field, value, named):
    target = card
    for step in field[:-1]:
        target = target[step]
    target[field[-1]] = value
    error = refused(write_card(card))
    assert error.code == "E_CARD_INVALID"
    assert f"field {named}" in error.message


@pytest.mark.parametrize("field", ["format", "id", "architecture", "bands", "classes", "licence", "sha256"])
def test_a_missing_field_is_named(card, write_card, field):
    del card[field]
    error = refused(write_card(card))
    assert error.code == "E_CARD_INVALID"
    assert f"`{field}`" in error.message


@pytest.mark.parametrize(("class_id", "said"), [(255, "255"), (256, "256"), (-1, "-1")])
def test_class_ids_stay_below_nodata(card, write_card, class_id, said):
    card["classes"][1]["id"] = class_id
    error = refused(write_card(card))
    assert error.code == "E_CARD_CLASSES"
    assert said in error.message


def test_duplicate_class_ids(card, write_card):
    card["classes"][2]["id"] = 7
    error = refused(write_card(card))
    assert error.code == "E_CARD_CLASSES"
    assert "'water'" in error.message
    assert "'roof'" in error.message


def test_duplicate_class_names(card, write_card):
    card["classes"][2]["name"] = "water"
    assert refused(write_card(card)).code == "E_CARD_CLASSES"


def test_duplicate_band_names(card, write_card):
    card["bands"][3]["name"] = "red"
    assert refused(write_card(card)).code == "E_CARD_BANDS"


def test_fixed_normalisation_needs_a_value_for_each_band(card, write_card):
    card["normalisation"] = {"method": "fixed", "mean": [1.0] * 4, "std": [1.0] * 4}
    assert read_card(write_card(card)).normalisation.std == [1.0] * 4
    shorter = copy.deepcopy(card)
    shorter["normalisation"]["std"] = [1.0] * 3
    error = refused(write_card(shorter))
    assert error.code == "E_CARD_NORMALISATION"
    assert "normalisation.std" in error.message


def test_values_that_a_scene_would_overrule_are_refused(card, write_card):
    card["normalisation"]["mean"] = [1.0] * 4
    assert refused(write_card(card)).code == "E_CARD_NORMALISATION"


def test_expected_resolution_lies_between_its_bounds(card, write_card):
    card["ground_resolution_m"]["expected"] = 3.0
    assert refused(write_card(card)).code == "E_CARD_RESOLUTION"
