import types
from pathlib import Path

import pytest

from memserve.errors import InvalidInput
from memserve.hardware import detect
from memserve.hardware.detection import ascend
from memserve.hardware.machine import GIB

MIB = 1024**2
DATA = Path(__file__).parents[1] / "data" / "hardware"


def table(name):
    return (DATA / name).read_text(encoding="utf-8")


def test_a_table_of_an_atlas_a2(tools):
    tools("npu-smi", ("info", {"stdout": table("npu_smi_910b4.txt")}))
    machine = detect()
    assert (machine.cards_per_node, machine.card.name) == (2, "910B4")
    assert machine.card.memory / GIB == pytest.approx(29.5, abs=0.01)
    assert machine.free_memory == ((32768 - 3127) * MIB, (32768 - 30011) * MIB)


def test_an_a3_card_shows_two_devices(tools):
    tools("npu-smi", ("info", {"stdout": table("npu_smi_a3.txt")}))
    machine = detect()
    assert (machine.cards_per_node, machine.card.name) == (2, "A3")


def test_other_column_widths():
    narrow = "\n".join(
        "| " + " | ".join(" ".join(cell.split()) for cell in line.strip("|").split("|")) + " |"
        for line in table("npu_smi_910b4.txt").splitlines()
        if line.startswith("|")
    )
    assert ascend.from_table(narrow) == ascend.from_table(table("npu_smi_910b4.txt"))


def test_a_64_gb_910b4_is_its_own_card(tools):
    tools("npu-smi", ("info", {"stdout": table("npu_smi_910b4.txt").replace("/ 32768", "/ 65536")}))
    assert detect().card.name == "910B4-1"


def test_visible_devices(tools):
    tools("npu-smi", ("info", {"stdout": table("npu_smi_910b4.txt")}))
    machine = detect(env={"ASCEND_RT_VISIBLE_DEVICES": "1"})
    assert machine.free_memory == ((32768 - 30011) * MIB,)
    assert "leaves 1 of 2 cards" in machine.notes[0]
    assert detect(env={"ASCEND_RT_VISIBLE_DEVICES": ""}).card.vendor == "cpu"


@pytest.mark.parametrize("text", ["", "Segmentation fault", "| 0 910B4 |\n| 0 | 0000:C1:00.0 | none |"])
def test_a_garbled_table(tools, text):
    tools("npu-smi", ("info", {"stdout": text}))
    with pytest.raises(InvalidInput, match="npu-smi gave an answer that cannot be read"):
        detect()


def test_a_failing_tool_is_told(tools):
    tools(
        "npu-smi", ("info", {"code": 255, "stdout": "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n"})
    )
    machine = detect()
    assert machine.card.vendor == "cpu"
    assert "npu-smi failed with code 255: DrvMngGetConsoleLogLevel failed" in machine.notes[0]


def test_torch_npu_gives_the_total_that_engines_see(tools):
    total, free = round(61.27 * GIB), round(60 * GIB)
    npu = types.SimpleNamespace(
        device_count=lambda: 8,
        get_device_name=lambda index: "Ascend910B3",
        get_device_properties=lambda index: types.SimpleNamespace(total_memory=total),
        mem_get_info=lambda index: (free, total),
    )
    machine = detect(torch_npu=types.SimpleNamespace(npu=npu))
    assert (machine.cards_per_node, machine.card.name, machine.card.memory) == (8, "910B3", total)
    assert machine.free_memory == (free,) * 8
