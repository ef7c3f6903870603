"""Bytes and time of parallel layouts, against sums by hand."""

from __future__ import annotations

import pytest

from memserve.errors import InvalidInput
from memserve.hardware import parse
from memserve.model import load
from memserve.speed import communication as wires
from memserve.speed.roofline import shape

LLAMA = shape.of(load("meta-llama/Llama-3.1-8B-Instruct"))
MIXTRAL = shape.of(load("mistralai/Mixtral-8x7B-Instruct-v0.1"))


def test_tensor_parallel_reduces_twice_a_layer():
    found = wires.inference(LLAMA, "tensor", 4, "NVLink4", tokens=16)
    assert found.bytes == pytest.approx(2 * 32 * 16 * 4096 * 2 * 2 * 3 / 4)
    assert found.messages == 64
    assert wires.training(LLAMA, "tensor", 4, "NVLink4", tokens=16).bytes == pytest.approx(2 * found.bytes)


def test_data_parallel_moves_gradients_only_when_training():
    assert wires.inference(LLAMA, "data", 8, "PCIe4", tokens=16).seconds == 0
    found = wires.training(LLAMA, "data", 8, "PCIe4", tokens=16)
    assert found.bytes == pytest.approx(8_030_261_248 * 2 * 2 * 7 / 8)


def test_pipelines_send_one_hidden_state():
    assert wires.inference(LLAMA, "pipeline", 4, "Ethernet-100G", tokens=8).bytes == 8 * 4096 * 2


def test_experts_exchange_rows_and_dense_models_have_none():
    found = wires.inference(MIXTRAL, "expert", 8, "HCCS", tokens=8)
    assert found.bytes == pytest.approx(2 * 32 * 8 * 4096 * 2 * 2 * 7 / 8)
    with pytest.raises(InvalidInput, match="experts"):
        wires.inference(LLAMA, "expert", 8, "HCCS", tokens=8)


def test_slower_links_take_longer_and_one_card_takes_nothing():
    times = [
        wires.inference(LLAMA, "tensor", 8, link, tokens=4096).seconds
        for link in ("NVLink4", "PCIe5", "Ethernet-10G")
    ]
    assert times == sorted(times)
    assert wires.inference(LLAMA, "tensor", 1, "PCIe4", tokens=8).seconds == 0
    link = parse("8xH100").card.link
    assert link is not None
    assert wires.inference(LLAMA, "tensor", 8, link, tokens=8).link == link.kind


def test_the_table_has_every_kind_over_every_link():
    assert len(wires.table(MIXTRAL, 8, 64)) == 4 * len(wires.LINKS)
    assert len(wires.table(LLAMA, 8, 64, train=True)) == 3 * len(wires.LINKS)
    with pytest.raises(InvalidInput, match="link"):
        wires.inference(LLAMA, "tensor", 2, "string", tokens=1)
