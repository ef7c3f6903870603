"""Ascend NPUs: through npu-smi, or torch_npu where that is all there is."""

import re
from importlib.util import find_spec
from typing import Any

from memserve.hardware.detection.seen import MIB, Report, Seen, ToolFailed, have, output, unreadable

_BUS = re.compile(r"^(NA|[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])$")
_NAME = re.compile(r"^([0-9]+)\s+([0-9A-Za-z_][0-9A-Za-z_-]*)$")
_OF = re.compile(r"([0-9]+)\s*/\s*([0-9]+)")


def look(torch_npu: Any = None) -> Report:
    """The NPUs of this machine, one per die."""
    notes: list[str] = []
    if have("npu-smi"):
        try:
            return Report(from_table(output("npu-smi", "info")))
        except ToolFailed as error:
            notes.append(str(error))
    module = torch_npu if torch_npu is not None else _torch_npu()
    return Report(from_torch(module) if module is not None else (), tuple(notes))


def _torch_npu() -> Any:
    """torch_npu, imported only where it is installed beside torch."""
    if find_spec("torch_npu") is None or find_spec("torch") is None:
        return None
    import torch_npu

    return torch_npu


def from_table(text: str) -> tuple[Seen, ...]:
    """Reads the table of `npu-smi info`. Two rows belong to a chip; widths differ between releases.

    The first row has the NPU's number and name, the second the chip, its bus and "used / total" of the
    HBM last. On an A3 and a 300I Duo one NPU shows two chips, which are two devices.
    """
    found: list[Seen] = []
    above: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) >= 3 and _BUS.match(cells[1]) and above:
            found.append(_chip(len(found), above, cells, text))
        above = cells if len(cells) >= 3 else []
    if not found and "No " not in text:
        raise unreadable("npu-smi", text)
    return tuple(found)


def _chip(number: int, above: list[str], below: list[str], text: str) -> Seen:
    name, sizes = _NAME.match(above[0]), _OF.findall(below[-1])
    if name is None or not sizes:
        raise unreadable("npu-smi", text)
    used, total = (int(size) * MIB for size in sizes[-1])
    if not total and len(sizes) > 1:  # 310P: its memory stands in the column before
        used, total = (int(size) * MIB for size in sizes[0])
    return Seen(number, name[2], "ascend", total, max(0, total - used))


def from_torch(torch_npu: Any) -> tuple[Seen, ...]:
    """What torch_npu shows; its total is what an engine budgets against."""
    found = []
    for index in range(torch_npu.npu.device_count()):
        total = int(torch_npu.npu.get_device_properties(index).total_memory)
        free = int(torch_npu.npu.mem_get_info(index)[0])
        name = str(torch_npu.npu.get_device_name(index))
        found.append(Seen(index, name, "ascend", None, min(free, total), framework_total=total))
    return tuple(found)
