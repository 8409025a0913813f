from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rest_backend.errors import InputError
from rest_backend.models.zoo import find_model, list_models, models_folder, scan_models, summary


@pytest.fixture
def home(tmp_path, card):
    """A daemon's folder with one model of the user."""
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    (folder / "small.json").write_text(json.dumps(card))
    (folder / "small.safetensors").write_bytes(b"")
    return folder.parent


def test_bundled_models_come_first(home):
    models = list_models(home)
    assert [model.id for model in models] == ["kitsap-buildings", "small"]
    assert [model.bundled for model in models] == [True, False]


def test_a_home_without_models_has_the_bundled_ones(tmp_path):
    models, broken = scan_models(tmp_path)
    assert [model.id for model in models] == ["kitsap-buildings"]
    assert broken == []


def test_the_folder_follows_rest_home(tmp_path, monkeypatch):
    monkeypatch.setenv("REST_HOME", str(tmp_path / "elsewhere"))
    assert models_folder() == tmp_path / "elsewhere" / "models"


def test_one_broken_card_does_not_hide_the_others(home):
    (home / "models" / "broken.json").write_text("{")
    models, broken = scan_models(home)
    assert [model.id for model in models] == ["kitsap-buildings", "small"]
    assert [(other.id, other.error.code) for other in broken] == [("broken", "E_CARD_INVALID")]
    with pytest.raises(InputError) as caught:
        find_model("broken", home)
    assert caught.value.code == "E_CARD_INVALID"


def test_a_card_without_weights(home):
    (home / "models" / "small.safetensors").unlink()
    assert [model.id for model in list_models(home)] == ["kitsap-buildings"]
    for name in ("small", str(home / "models" / "small.json")):
        with pytest.raises(InputError) as caught:
            find_model(name, home)
        assert caught.value.code == "E_WEIGHTS_MISSING"
        assert "small.safetensors" in caught.value.message


def test_an_id_taken_twice(home, card):
    card["id"] = "kitsap-buildings"
    (home / "models" / "small.json").write_text(json.dumps(card))
    models, broken = scan_models(home)
    assert [model.bundled for model in models] == [True]
    assert broken[0].error.code == "E_MODEL_DUPLICATE"
    assert find_model("kitsap-buildings", home).bundled


def test_an_unknown_id_lists_the_known_ones(home):
    with pytest.raises(InputError) as caught:
        find_model("smal", home)
    assert caught.value.code == "E_MODEL_UNKNOWN"
    assert "kitsap-buildings, small" in caught.value.message


@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_model_anywhere_on_disk(home, suffix):
    model = find_model(home / "models" / f"small{suffix}", home=Path("nowhere"))
    assert model.id == "small"
    assert not model.bundled
    assert model.weights_path == home / "models" / "small.safetensors"


def test_a_summary_is_plain_json(home):
    bundled, small = (summary(model) for model in list_models(home))
    assert json.loads(json.dumps(small)) == small
    assert small["id"] == "small"
    assert small["classes"][1] == {"id": 7, "name": "water", "color": "#0000ff"}
    assert small["bands"][3]["name"] == "nir"
    assert small["licence"] == "CC0-1.0"
    assert small["score"] is None
    assert small["bundled"] is False
    assert small["ground_resolution_m"] == {"expected": 1.0, "minimum": 0.5, "maximum": 2.0}
    assert bundled["bundled"] is True
    assert len(bundled["score"]["classes"]) == len(bundled["classes"])


def test_listing_models_imports_no_torch(home):
    program = (
        "import sys; from rest_backend.models.zoo import list_models, summary;"
        "print([summary(model)['id'] for model in list_models()]);"
        "sys.exit(bool({'torch', 'timm', 'rasterio', 'numpy'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "REST_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['kitsap-buildings', 'small']"
