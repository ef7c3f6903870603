import json

import pytest

from memserve.errors import InvalidInput
from memserve.hardware import detect

MIB = 1024**2


def static(count, wrap=False, size=196592, name="AMD Instinct MI300X", gfx="gfx942"):
    rows = [
        {"gpu": index, "asic": {"market_name": name, "target_graphics_version": gfx},
         "vram": {"type": "HBM", "size": {"value": size, "unit": "MB"}}}
        for index in range(count)
    ]  # fmt: skip
    return {"stdout": json.dumps({"gpu_data": rows} if wrap else rows)}


def usage(*free):
    rows = [
        {"gpu": index, "mem_usage": {"free_vram": {"value": value, "unit": "MB"}}}
        for index, value in enumerate(free)
    ]
    return {"stdout": json.dumps(rows)}


@pytest.mark.parametrize("wrap", [False, True])
def test_amd_smi(tools, wrap):
    tools("amd-smi", ("static", static(2, wrap)), ("metric", usage(196000, 5000)))
    machine = detect(env={})
    assert (machine.cards_per_node, machine.card.name) == (2, "MI300X")
    assert machine.free_memory == (196000 * MIB, 5000 * MIB)


def test_a_released_figure_of_an_mi325x(tools):
    tools("amd-smi", ("static", static(1, size=261824, name="AMD Instinct MI325X")), ("metric", {"code": 1}))
    machine = detect(env={})
    assert machine.card.name == "MI325X"
    assert machine.free_memory == (machine.card.memory,)


def test_an_unknown_card_is_matched_by_its_architecture(tools):
    tools("amd-smi", ("static", static(1, size=24560, name="AMD Radeon PRO W7800", gfx="gfx1100")))
    machine = detect(env={})
    assert machine.card.flops["float16"] > 0
    assert "RX7900XTX" in machine.notes[-1]


def test_both_variables_apply(tools):
    tools("amd-smi", ("static", static(4)), ("metric", usage(1000, 2000, 3000, 4000)))
    machine = detect(env={"ROCR_VISIBLE_DEVICES": "1,2,3", "HIP_VISIBLE_DEVICES": "2"})
    assert machine.free_memory == (4000 * MIB,)
    assert detect(env={"CUDA_VISIBLE_DEVICES": "1"}).free_memory == (2000 * MIB,)


def test_rocm_smi(tools):
    rows = {"card0": {"Card Series": "AMD Instinct MI300X", "GFX Version": "gfx942",
                      "VRAM Total Memory (B)": "206141652992", "VRAM Total Used Memory (B)": "297467904"},
            "system": {"Driver version": "6.8"}}  # fmt: skip
    tools("rocm-smi", ("--showmeminfo", {"stdout": "WARNING: not all\n" + json.dumps(rows)}))
    machine = detect(env={})
    assert (machine.cards_per_node, machine.card.name) == (1, "MI300X")
    assert machine.free_memory == (206141652992 - 297467904,)


@pytest.mark.parametrize("text", ["", "{", '{"gpu_data": 3}', "[1, 2]"])
def test_garbled_json(tools, text):
    tools("amd-smi", ("static", {"stdout": text}))
    with pytest.raises(InvalidInput, match="amd-smi gave an answer that cannot be read"):
        detect(env={})
