"""Refuses a checkpoint that does not fit before any of it is loaded, and names a plan that would."""

from dataclasses import replace

from memserve.errors import DoesNotFit, MemserveError
from memserve.hardware.machine import GIB
from memserve.plan import Plan
from memserve_hf.opening.claim import FLOATS, Checkpoint
from memserve_hf.opening.device import Place, free_bytes
from memserve_hf.options import Options

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_COMFORT = 0.7
"""Share of the free memory that weights may take before a smaller dtype is chosen."""
_QUANTIZED = {"nf4": 4.5 / 8, "fp4": 4.5 / 8, "int8": 1.05}
"""Bytes of a weight that is quantized while loading, its scales included."""


def refuse_too_large(found: Checkpoint, options: Options, place: Place) -> None:
    """Raise `DoesNotFit` if the weights alone exceed the free memory of the one device they go to."""
    free = free_bytes(place.device)
    if not options.check_memory or options.device_map is not None or free is None:
        return
    needed = weight_bytes(found, options, place)
    if needed <= free:
        return
    fitting = _plan_for(found)
    raise DoesNotFit(
        f"{found.name} needs {needed / GIB:.1f} GiB for its weights in "
        f"{options.quantization or place.dtype}; {place.described} has {free / GIB:.1f} GiB free",
        closest=fitting,
        hint=_advice(fitting),
    )


def settled(found: Checkpoint, options: Options, place: Place, stored: str | None) -> Place:
    """The place with the dtype that nobody chose: a CPU keeps half precision where float32 is too much."""
    half = place.kind == "cpu" and options.dtype is None and stored in ("float16", "bfloat16")
    free = free_bytes(place.device)
    if not half or free is None or weight_bytes(found, options, place) <= free * _COMFORT:
        return place
    return replace(place, dtype=str(stored))


def weight_bytes(found: Checkpoint, options: Options, place: Place) -> int:
    """What the stored tensors take once loaded; integers are packed weights and stay as they are."""
    each = _QUANTIZED.get(options.quantization or "", _BYTES[place.dtype])
    sizes = (size / FLOATS[dtype] * each if dtype in FLOATS else size for dtype, size in found.stored.items())
    return int(sum(sizes))


def _plan_for(found: Checkpoint) -> Plan | None:
    from memserve.plan import best

    try:
        return best(str(found.folder))
    except MemserveError:
        return None


def _advice(plan: Plan | None) -> str:
    if plan is None:
        return "try quantization='nf4', or find a machine: python -m memserve.plan MODEL --gpus any"
    return f"this fits here: backend {plan.backend}, quantization {plan.quantization}"
