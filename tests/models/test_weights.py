from __future__ import annotations

import gc
import hashlib
import os
import struct
import weakref

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from rest_backend.errors import InputError
from rest_backend.models.card import Architecture, read_card
from rest_backend.models.network import build_network
from rest_backend.models.weights import HEADER_LIMIT, load_model, save_weights
from rest_backend.models.zoo import InstalledModel

NAME = "segmentation_head.0.weight"


@pytest.fixture
def network(card):
    """The card's network with random weights."""
    torch.manual_seed(0)
    return build_network(msgspec.convert(card["architecture"], Architecture), bands=4, classes=3).eval()


@pytest.fixture
def install(card, write_card, tmp_path):
    """Put weights beside the card, whose hash follows unless told otherwise."""
    weights = tmp_path / "small.safetensors"

    def put(content, sha256=None):
        if isinstance(content, bytes):
            weights.write_bytes(content)
        else:
            save_file(content, weights)
        card["sha256"] = sha256 or hashlib.sha256(weights.read_bytes()).hexdigest()
        path = write_card(card)
        return InstalledModel("small", path, read_card(path), bundled=False)

    return put


def refused(model: InstalledModel) -> InputError:
    with pytest.raises(InputError) as caught:
        load_model(model)
    return caught.value


def test_weights_survive_the_disk(network, install, tmp_path):
    path = tmp_path / "made.safetensors"
    digest = save_weights(network, path, dtype=torch.float32)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_model(install(path.read_bytes(), digest))
    scene = torch.randn(1, 4, 64, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(scene), network(scene))


def test_half_precision_files_give_a_float32_network_in_eval_mode(network, install, tmp_path):
    path = tmp_path / "made.safetensors"
    save_weights(network, path)
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    loaded = load_model(install(path.read_bytes()))
    assert not any(module.training for module in loaded.modules())
    assert not any(value.requires_grad for value in loaded.parameters())
    for name, value in loaded.state_dict().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert torch.equal(value, network.state_dict()[name].half().float()), name


def test_saving_leaves_nothing_behind_when_it_fails(network, tmp_path):
    with torch.no_grad():
        network.segmentation_head[0].weight[0, 0, 0, 0] = 1e6  # more than float16 holds
    with pytest.raises(InputError) as caught:
        save_weights(network, tmp_path / "made.safetensors")
    assert caught.value.code == "E_WEIGHTS_VALUE"
    assert NAME in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_in_one_step(network, tmp_path):
    path = tmp_path / "made.safetensors"
    path.write_bytes(b"before")
    save_weights(network, path)
    assert [other.name for other in tmp_path.iterdir()] == ["made.safetensors"]


def test_weights_gone(network, install, tmp_path):
    model = install(network.state_dict())
    model.weights_path.unlink()
    assert refused(model).code == "E_WEIGHTS_MISSING"


def test_wrong_hash(network, install):
    error = refused(install(network.state_dict(), sha256="f" * 64))
    assert error.code == "E_WEIGHTS_HASH"
    assert "small.safetensors" in error.message


def test_wrong_shape_is_refused_by_the_tensors_name(network, install):
    state = network.state_dict()
    state[NAME] = torch.zeros(9, 8, 3, 3)
    error = refused(install(state))
    assert error.code == "E_WEIGHTS_SHAPE"
    assert NAME in error.message
    assert "(9, 8, 3, 3)" in error.message
    assert "(3, 8, 3, 3)" in error.message


def test_a_card_with_another_class_count_does_not_fit(network, install, card):
    del card["classes"][2]
    error = refused(install(network.state_dict()))
    assert error.code == "E_WEIGHTS_SHAPE"
    assert "segmentation_head" in error.message


def test_missing_tensor(network, install):
    state = network.state_dict()
    del state[NAME]
    error = refused(install(state))
    assert error.code == "E_WEIGHTS_NAME"
    assert f"no tensor {NAME!r}" in error.message


def test_extra_tensor(network, install):
    error = refused(install({**network.state_dict(), "zz.spare": torch.zeros(1)}))
    assert error.code == "E_WEIGHTS_NAME"
    assert "'zz.spare'" in error.message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers(network, install, value):
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state[NAME][0, 0, 0, 0] = value
    error = refused(install(state))
    assert error.code == "E_WEIGHTS_VALUE"
    assert NAME in error.message


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        struct.pack("<Q", 10**15) + b"{}",
        struct.pack("<Q", HEADER_LIMIT + 1) + b" " * (HEADER_LIMIT + 1),
        struct.pack("<Q", 2) + b"{]",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", len(HEADER)) + HEADER.replace(b"[1]", b"[-]")[: len(HEADER)],
    ],
)
def test_what_is_no_safetensors_file(install, content):
    assert refused(install(content)).code == "E_WEIGHTS_FORMAT"


def test_a_file_cut_off_behind_its_header(network, install, tmp_path):
    path = tmp_path / "made.safetensors"
    save_weights(network, path)
    assert refused(install(path.read_bytes()[:-100])).code == "E_WEIGHTS_FORMAT"


def test_an_unknown_tensor_type(network, install, tmp_path):
    state = network.state_dict()
    state[NAME] = state[NAME].to(torch.float8_e4m3fn)
    assert refused(install(state)).code == "E_WEIGHTS_FORMAT"


def test_the_last_network_is_kept_while_its_file_is_the_same(network, install, tmp_path):
    model = install(network.state_dict())
    loaded = load_model(model)
    assert load_model(model) is loaded
    assert load_model(model, 64, 96) is loaded  # a convolutional network is made for no size


def test_a_replaced_file_is_noticed(network, install, tmp_path):
    model = install(network.state_dict())
    loaded = load_model(model)
    status = model.weights_path.stat()
    other = model.weights_path.with_name("other")
    other.write_bytes(model.weights_path.read_bytes()[:-4] + b"\0\0\0\0")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # only the file itself is another
    other.replace(model.weights_path)
    assert refused(model).code == "E_WEIGHTS_HASH"
    assert refused(model).code == "E_WEIGHTS_HASH"
    state = {name: value * 0 for name, value in network.state_dict().items()}
    again = load_model(install(state))
    assert again is not loaded
    assert not any(value.any() for value in again.parameters())


def test_a_changed_card_is_noticed(network, install, card, write_card):
    loaded = load_model(install(network.state_dict()))
    card["classes"][0]["name"] = "other"
    path = write_card(card)
    assert load_model(InstalledModel("small", path, read_card(path), bundled=False)) is not loaded


def test_one_network_is_kept_and_no_more(network, install, write_card, card, tmp_path):
    first = install(network.state_dict())
    gone = weakref.ref(load_model(first))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (first.card_path, first.weights_path):
        (copy / path.name).write_bytes(path.read_bytes())
    second = InstalledModel("small", copy / first.card_path.name, first.card, bundled=False)
    loaded = load_model(second)
    gc.collect()
    assert gone() is None
    assert load_model(second) is loaded


def test_a_network_made_for_a_size_is_kept_for_that_size_only(card, install):
    card["architecture"] = {"encoder": "tu-vit_tiny_patch16_224", "decoder": "dpt", "parameters": {}}
    architecture = msgspec.convert(card["architecture"], Architecture)
    state = build_network(architecture, bands=4, classes=3).state_dict()
    model = install(state)
    loaded = load_model(model, 224, 224)
    assert load_model(model, 224, 224) is loaded
    del loaded
    with pytest.raises(InputError) as caught:  # the position table of the file is of 224 pixels
        load_model(model, 256, 224)
    assert caught.value.code == "E_WEIGHTS_SHAPE"
