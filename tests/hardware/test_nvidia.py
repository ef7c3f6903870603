import types

import pytest

from memserve.errors import InvalidInput
from memserve.hardware import detect
from memserve.hardware.machine import GIB

MIB = 1024**2
QUERY = "--query-gpu"


def csv(*rows):
    return {"stdout": "".join(f"{row}\n" for row in rows)}


def h100(index, free=81000, mig="Disabled"):
    return f"{index}, GPU-{index}aaaa-bbbb, NVIDIA H100 80GB HBM3, 81559, {free}, 9.0, {mig}"


def test_cards_and_their_free_memory(tools):
    tools("nvidia-smi", (QUERY, csv(h100(0), h100(1, free=20000))))
    machine = detect()
    assert (machine.cards_per_node, machine.card.name, machine.origin) == (2, "H100-80GB", "detected")
    assert machine.card.memory / GIB == pytest.approx(79.18, abs=0.01)
    assert machine.free_memory == (81000 * MIB, 20000 * MIB)


def test_free_memory_is_never_above_what_the_framework_sees(tools):
    tools("nvidia-smi", (QUERY, csv(h100(0, free=81559))))
    machine = detect()
    assert machine.free_memory == (machine.card.memory,)


def test_an_old_driver_without_the_newer_fields(tools):
    refusal = {"code": 2, "stdout": 'Field "compute_cap" is not a valid field to query.\n\n'}
    row = "0, GPU-1, Tesla V100-SXM2-32GB, 32510, 15906"
    tools("nvidia-smi", ("compute_cap", refusal), (QUERY, csv(row)))
    machine = detect()
    assert (machine.card.name, machine.card.sm) == ("V100-32GB", 70)
    assert machine.free_memory == (15906 * MIB,)


def test_a_newer_driver_shows_more_of_the_same_card(tools):
    tools("nvidia-smi", (QUERY, csv("0, GPU-1, Tesla V100-SXM2-32GB, 32768, 32000, 7.0, [N/A]")))
    machine = detect()
    assert machine.card.driver_memory == 32768 * MIB
    assert machine.card.memory / GIB == pytest.approx(31.73, abs=0.01)


@pytest.mark.parametrize(
    ("wish", "indices"),
    [
        ("0,2", [0, 2]),
        ("2,0", [2, 0]),
        ("GPU-1a", [1]),
        ("GPU-1aaaa-bbbb, 0", [1, 0]),
        ("1,7,2", [1]),  # CUDA stops at the first that does not exist
        ("1,-1,2", [1]),
        ("1,1", [1]),
    ],
)
def test_cuda_visible_devices(tools, wish, indices):
    rows = [h100(index, free=10000 + index) for index in range(4)]
    tools("nvidia-smi", (QUERY, csv(*rows)))
    machine = detect(env={"CUDA_VISIBLE_DEVICES": wish})
    assert machine.free_memory == tuple((10000 + index) * MIB for index in indices)
    assert "CUDA_VISIBLE_DEVICES" in machine.notes[0]


@pytest.mark.parametrize("wish", ["", "-1", "none", "9"])
def test_all_hidden_leaves_the_cpu(tools, wish):
    tools("nvidia-smi", (QUERY, csv(h100(0), h100(1))))
    machine = detect(env={"CUDA_VISIBLE_DEVICES": wish})
    assert machine.card.vendor == "cpu"
    assert "leaves 0 of 2 cards" in machine.notes[0]


def test_mixed_cards_plan_for_the_larger_group_and_say_so(tools):
    rows = ["0, GPU-0, NVIDIA GeForce RTX 3090, 24576, 24000, 8.6, [N/A]",
            "1, GPU-1, NVIDIA GeForce RTX 4090, 24564, 24000, 8.9, [N/A]",
            "2, GPU-2, NVIDIA GeForce RTX 4090, 24564, 24000, 8.9, [N/A]"]  # fmt: skip
    tools("nvidia-smi", (QUERY, csv(*rows)))
    machine = detect()
    assert (machine.cards_per_node, machine.card.name) == (2, "RTX4090")
    assert machine.notes == (
        "the cards differ (1xRTX3090, 2xRTX4090): this plans for 2xRTX4090; set CUDA_VISIBLE_DEVICES=1,2",
    )


def test_an_unknown_card_takes_the_nearest_ones_rates(tools):
    row = "0, GPU-0, NVIDIA GeForce RTX 4090 Laptop GPU, 16376, 16000, 8.9, [N/A]"
    tools("nvidia-smi", (QUERY, csv(row)))
    machine = detect()
    assert machine.card.name == "NVIDIA GeForce RTX 4090 Laptop GPU"
    assert machine.card.sm == 89
    assert machine.card.memory < 16376 * MIB
    assert "is not in the catalogue" in machine.notes[-1]


def test_the_same_name_with_another_memory(tools):
    tools("nvidia-smi", (QUERY, csv("0, GPU-0, NVIDIA GeForce RTX 3080, 12288, 12000, 8.6, [N/A]")))
    machine = detect()
    assert machine.card.memory / GIB == pytest.approx(11.66, abs=0.05)
    assert "usually has 10.0" in machine.notes[-1]


def test_unified_memory_without_a_figure(tools):
    tools("nvidia-smi", (QUERY, csv("0, GPU-0, NVIDIA GB10, [N/A], [N/A], 12.1, [N/A]")))
    machine = detect()
    assert machine.card.name == "GB10"
    assert machine.free_memory is not None and machine.free_memory[0] > 0


def test_mig_slices(tools):
    listed = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-0)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-aaaa)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-bbbb)\n"
    )
    row = "0, GPU-0, NVIDIA A100-SXM4-80GB, 81920, 81000, 8.0, Enabled"
    tools("nvidia-smi", (QUERY, csv(row)), ("-L", {"stdout": listed}))
    machine = detect(env={})
    assert machine.cards_per_node == 1
    assert machine.card.name == "A100-80GB-MIG-3g.40gb"
    assert machine.card.memory < 40 * GIB
    assert machine.card.flops["bfloat16"] == pytest.approx(312e12 * 3 / 7)
    assert "2 MIG slices" in machine.notes[-1]
    assert detect(env={"CUDA_VISIBLE_DEVICES": "MIG-bbbb"}).card.name == "A100-80GB-MIG-3g.40gb"


@pytest.mark.parametrize(
    "answer",
    [
        {
            "code": 9,
            "stdout": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
        },
        {"code": 15, "stderr": "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system."},
    ],
)
def test_a_broken_driver_is_told_and_the_cpu_left(tools, answer):
    tools("nvidia-smi", (QUERY, answer))
    machine = detect()
    assert machine.card.vendor == "cpu"
    assert "nvidia-smi failed" in machine.notes[0]


def test_a_tool_that_hangs_is_given_up(tools, monkeypatch):
    monkeypatch.setattr("memserve.hardware.detection.seen.output.__kwdefaults__", {"limit": 0.3})
    tools("nvidia-smi", (QUERY, {"sleep": 30}))
    machine = detect()
    assert "did not answer within 0.3 s" in machine.notes[0]


def test_no_devices_is_no_error(tools):
    tools("nvidia-smi", (QUERY, {"stdout": "No devices were found\n"}))
    assert detect().card.vendor == "cpu"


@pytest.mark.parametrize("text", ["<html>", "0, GPU-1, half a row\n", "\x00\x01\n"])
def test_a_garbled_answer_is_one_clear_line(tools, text):
    tools("nvidia-smi", (QUERY, {"stdout": text}))
    with pytest.raises(InvalidInput, match="nvidia-smi gave an answer that cannot be read") as caught:
        detect()
    assert "--gpus" in str(caught.value)


class FakeNvml(types.SimpleNamespace):
    """As pynvml answers: handles are plain numbers; a question in `refused` raises."""

    class NVMLError(Exception):
        pass

    def __getattr__(self, name):
        if name.startswith("nvml"):
            return lambda *words: self.answer(name, *words)
        raise AttributeError(name)

    def answer(self, name, *words):
        if name in self.refused:
            raise self.NVMLError("Not Supported")
        value = self.answers.get(name)
        return value[words[0]] if isinstance(value, list) else value


def fake(names, memory, refused=("nvmlDeviceGetMigMode",), **answers):
    handles = list(range(len(names)))
    return FakeNvml(refused=refused, answers={
        "nvmlDeviceGetCount": len(names), "nvmlDeviceGetHandleByIndex": handles, "nvmlDeviceGetName": names,
        "nvmlDeviceGetMemoryInfo": [types.SimpleNamespace(total=t * MIB, free=f * MIB) for t, f in memory],
        "nvmlDeviceGetCudaComputeCapability": (9, 0),
        "nvmlDeviceGetUUID": [f"GPU-{handle}" for handle in handles], **answers,
    })  # fmt: skip


def test_nvml(tools):
    nvml = fake([b"NVIDIA H200", "NVIDIA H200"], [(143771, 143700), (143771, 90000)])
    machine = detect(nvml=nvml)
    assert (machine.cards_per_node, machine.card.name) == (2, "H200")
    assert machine.free_memory == (machine.card.memory, 90000 * MIB)


def test_nvml_slices(tools):
    nvml = fake(
        ["NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB MIG 1g.10gb"],
        [(81920, 81000), (9728, 9700)],
        refused=(),
        nvmlDeviceGetCount=1,
        nvmlDeviceGetMigMode=(1, 1),
        nvmlDeviceGetMaxMigDeviceCount=1,
        nvmlDeviceGetMigDeviceHandleByIndex=[1],
    )
    machine = detect(nvml=nvml)
    assert (machine.cards_per_node, machine.card.name) == (1, "A100-80GB-MIG-1g.10gb")
    assert machine.card.memory == 9728 * MIB


def test_nvml_that_fails_falls_back_on_nvidia_smi(tools):
    tools("nvidia-smi", (QUERY, csv(h100(0))))
    machine = detect(nvml=fake([], [], refused=("nvmlInit",)))
    assert machine.card.name == "H100-80GB"
