"""What a model is like inside: weights, activations, and how much each layer matters, from a few samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from memserve.compress.worker.model import calibration, folder_of, left_alone, opened
from memserve.compress.worker.pruning import hooked, influences, loss, stack_of

FAR = 6.0
"""Standard deviations from which a number is an outlier."""


def analyse(job: dict[str, Any]) -> dict[str, Any]:
    """Per linear module its distributions; per layer what rounding it to 4 bits or leaving it out costs."""
    folder = folder_of(job["model"])
    model, ids = opened(folder), calibration({**job, "model": folder})
    stack, kept = stack_of(model), set(left_alone(model, job["left_alone"]))
    modules = _modules(model, stack, kept)
    given = _activations(model, modules, ids)
    base = sum(loss(model, one) for one in ids) / len(ids)
    moved = influences(model, stack, ids)
    rows = []
    for at in range(len(stack)):
        own = {name: part for name, part in modules.items() if name.startswith(f"{at}.")}
        rise = _rise(model, own, ids, base, job["group"] or 0) if own else None
        rows.append({"layer": at, "influence": round(moved[at], 5), "rise_4_bits": rise,
                     "modules": [{"name": name.partition(".")[2], **_spread(part.weight), **given[name]}
                                 for name, part in own.items()]})  # fmt: skip
    return {"folder": folder, "perplexity": math.exp(base), "layers": rows}


def _modules(model: Any, stack: Any, kept: set[str]) -> dict[str, Any]:
    """The linear modules of the layers that a method may touch, as LAYER.NAME."""
    import torch

    left = {id(part) for name, part in model.named_modules() if name in kept}
    return {f"{at}.{name}": part for at, layer in enumerate(stack) for name, part in layer.named_modules()
            if isinstance(part, torch.nn.Linear) and id(part) not in left}  # fmt: skip


def _spread(weight: Any) -> dict[str, float]:
    """Largest against standard deviation, kurtosis (3 is normal), and the share of outliers."""
    numbers = weight.detach().float().flatten()
    deviation = numbers.std()
    z = (numbers - numbers.mean()) / deviation
    return {"weight_max": round(float(z.abs().max()), 2), "weight_kurtosis": round(float((z**4).mean()), 2),
            "weight_outliers": round(float((z.abs() > FAR).float().mean()), 7)}  # fmt: skip


def _activations(model: Any, modules: dict[str, Any], ids: list[list[int]]) -> dict[str, dict[str, float]]:
    """How far the largest channel of what a module is given stands out, and its kurtosis."""
    found: dict[str, dict[str, float]] = {}

    def hook(name: str) -> Callable[..., None]:
        def see(_: Any, given: Any) -> None:
            if name not in found:
                numbers = given[0].detach().float().reshape(-1, given[0].shape[-1])
                channels, z = numbers.abs().amax(0), numbers / numbers.std()
                found[name] = {"input_outlier": round(float(channels.max() / channels.median()), 2),
                               "input_kurtosis": round(float((z**4).mean()), 2)}  # fmt: skip

        return see

    with hooked([part.register_forward_pre_hook(hook(name)) for name, part in modules.items()]):
        loss(model, ids[0])
    return {name: found.get(name, {}) for name in modules}


def _rise(model: Any, own: dict[str, Any], ids: list[list[int]], base: float, group: int) -> float:
    """The relative rise of perplexity when one layer alone is rounded to 4 bits."""
    whole = {name: part.weight.data for name, part in own.items()}
    for part in own.values():
        part.weight.data = _rounded(part.weight.data, group)
    after = sum(loss(model, one) for one in ids) / len(ids)
    for name, part in own.items():
        part.weight.data = whole[name]
    return round(math.expm1(after - base), 5)


def _rounded(weight: Any, group: int) -> Any:
    rows = weight.float().reshape(-1, group) if group else weight.float()
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 7
    return ((rows / scale).round().clamp(-8, 7) * scale).reshape(weight.shape).to(weight.dtype)
