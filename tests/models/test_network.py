from __future__ import annotations

import pytest
import torch

from rest_backend.errors import InputError
from rest_backend.models.card import Architecture
from rest_backend.models.network import (
    DECODERS,
    build_network,
    minimum_size,
    network_layout,
    required_multiple,
)

SMALL = "tu-mobilenetv3_small_050"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def architecture(encoder: str, decoder: str, **parameters) -> Architecture:
    return Architecture(encoder=encoder, decoder=decoder, parameters=parameters)


def refused(*arguments, **keywords) -> InputError:
    with pytest.raises(InputError) as caught:
        build_network(*arguments, **keywords)
    return caught.value


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_takes_any_bands_and_classes(decoder):
    chosen = architecture("tu-resnet18", decoder)
    side = minimum_size(chosen)
    layout = network_layout(chosen, bands=5, classes=3, height=side, width=side + 32)
    assert layout["encoder.model.conv1.weight"] == (64, 5, 7, 7)
    heads = [shape for name, shape in layout.items() if name.startswith("segmentation_head")]
    assert heads[-1] == (3,)


def test_a_forward_gives_logits_of_the_scenes_size():
    network = build_network(architecture(SMALL, "fpn"), bands=2, classes=4).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 2, 64, 96)).shape == (1, 4, 64, 96)


def test_parameters_reach_the_decoder():
    layout = network_layout(architecture(SMALL, "unet", decoder_channels=[16, 8, 8, 8, 4]), 3, 2)
    assert layout["segmentation_head.0.weight"] == (2, 4, 3, 3)


def test_smps_own_transformers():
    network = build_network(architecture("mit_b0", "segformer"), bands=4, classes=2).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 4, 64, 32)).shape == (1, 2, 64, 32)


@pytest.mark.parametrize("encoder", ["tu-swin_tiny_patch4_window7_224", "tu-swinv2_cr_tiny_224"])
def test_windowed_encoders_are_made_for_the_padded_size(encoder):
    layout = network_layout(architecture(encoder, "unet"), 3, 2, height=96, width=160)
    assert layout["segmentation_head.0.bias"] == (2,)


def test_position_tables_follow_the_padded_size():
    layout = network_layout(architecture("tu-vit_tiny_patch16_224", "dpt"), 3, 2, height=64, width=96)
    assert layout["encoder.model.pos_embed"] == (1, 4 * 6 + 1, 192)


@pytest.mark.parametrize(
    ("encoder", "decoder", "multiple"),
    [
        (SMALL, "unet", 32),
        ("mit_b0", "segformer", 32),
        ("tu-vit_tiny_patch16_224", "dpt", 32),
        ("tu-vit_base_patch8_224", "dpt", 16),
        ("tu-vit_base_patch32_224", "dpt", 64),
        ("tu-resnet18", "dpt", 32),
    ],
)
def test_required_multiple(encoder, decoder, multiple):
    assert required_multiple(architecture(encoder, decoder)) == multiple


def test_pan_needs_more_than_its_multiple():
    assert minimum_size(architecture("tu-resnet18", "pan")) == 128
    assert minimum_size(architecture("tu-resnet18", "fpn")) == 32


@pytest.mark.parametrize(
    ("encoder", "decoder", "works", "fails"),
    [
        ("mit_b0", "linknet", "segformer", "unetplusplus"),
        ("tu-vit_tiny_patch16_224", "unet", "dpt", "fpn"),
        ("tu-densenet121", "pan", "unet", "deeplabv3"),
    ],
)
def test_a_refused_pair_names_decoders_that_work(encoder, decoder, works, fails):
    error = refused(architecture(encoder, decoder), 3, 2)
    assert error.code == "E_ARCHITECTURE"
    working = error.message.split("Decoders that work with it: ")[1].rstrip(".").split(", ")
    assert works in working
    assert fails not in working
    assert decoder not in working


def test_a_parameter_the_decoder_does_not_know():
    error = refused(architecture(SMALL, "unet", depth_of_field=2), 3, 2)
    assert error.code == "E_ARCHITECTURE"
    assert "depth_of_field=2" in error.message
    assert "unet" in error.message.split("Decoders that work with it: ")[1]


@pytest.mark.parametrize("name", ["encoder_weights", "classes", "activation", "aux_params"])
def test_parameters_that_follow_from_the_card_cannot_be_set(name):
    error = refused(architecture(SMALL, "unet", **{name: 1}), 3, 2)
    assert error.code == "E_ARCHITECTURE"
    assert repr(name) in error.message


def test_a_monster_is_refused_before_memory_is_taken():
    error = refused(architecture("tu-resnet18", "unet", decoder_channels=[60000] * 5), 3, 2)
    assert error.code == "E_ARCHITECTURE"
    assert "parameters" in error.message


@pytest.mark.parametrize(
    ("encoder", "close"),
    [("tu-resnet19", "tu-resnet18"), ("resnet18", "tu-resnet18"), ("mit_b7", "mit_b"), ("tu-hf-hub:a/b", "")],
)
def test_an_unknown_encoder_gets_close_matches(encoder, close):
    error = refused(architecture(encoder, "unet"), 3, 2)
    assert error.code == "E_ENCODER_UNKNOWN"
    assert close in error.message.replace("mit_b0 to mit_b5", "")


def test_an_unknown_decoder_lists_the_known_ones():
    error = refused(architecture(SMALL, "unet3"), 3, 2)
    assert error.code == "E_DECODER_UNKNOWN"
    assert "segformer" in error.message


@pytest.mark.parametrize("decoder", ["unet", "fpn"])
def test_the_size_check_of_smp_survives_export(decoder):
    network = build_network(architecture(SMALL, decoder), 3, 2).eval()
    scene = torch.randn(1, 3, 64, 96)
    exported = torch.export.export(network, (scene,), strict=False)
    with torch.no_grad():
        assert torch.equal(exported.module()(scene), network(scene))
