"""What each layer does, and models with fewer or narrower ones, which every engine reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from memserve.compress.worker.model import calibration, copy_rest, folder_of, left_alone, opened

TRIED, JUDGED = 6, 4
"""Layers of the least influence whose loss is measured before one of them goes, and on how many samples."""
HELD = 0.3
"""How strongly a refitted weight is held to its own value, of its input's square."""
GRAMS = 2 << 30
"""Bytes of activation products that are held at once."""
COUNTED = ("first_k_dense_replace", "max_window_layers")
"""Fields that say how many of the first layers are of a kind."""
Samples = Sequence[list[int]]


def layers(job: dict[str, Any]) -> dict[str, Any]:
    """Drops the layers without which the loss rises least."""
    torch.set_grad_enabled(False)
    model, ids = opened(job["model"]), calibration(job)
    stack, kept = _stack(model), list(range(len(_stack(model))))
    whole, influence = list(stack), influences(model, stack, ids)
    for _ in range(int(job["amount"])):
        losses = {}
        for at in sorted(kept, key=lambda at: influence[at])[:TRIED]:
            _keep(model, stack, [whole[one] for one in kept if one != at])
            losses[at] = _loss(model, ids[:JUDGED])
        kept.remove(min(losses, key=lambda at: losses[at]))
    _keep(model, stack, [whole[at] for at in kept])
    for config in _configs(model):
        for name, value in list(vars(config).items()):
            if isinstance(value, list) and len(value) == len(whole):
                setattr(config, name, [value[at] for at in kept])
            elif name in COUNTED and isinstance(value, int):
                setattr(config, name, sum(at < value for at in kept))
    _save(model, job)
    return {"kept": kept, "influence": [round(one, 5) for one in influence], "samples": len(ids)}


def width(job: dict[str, Any]) -> dict[str, Any]:
    """Keeps the share of each MLP that matters most, and refits its output to what the whole one said."""
    torch.set_grad_enabled(False)
    model, ids = opened(job["model"]), calibration(job)
    names = ("gate_proj", "up_proj", "down_proj")
    mlps = [part for part in model.modules() if all(hasattr(part, name) for name in names)]
    if len(mlps) != len(_stack(model)):
        raise ValueError(f"width:R needs one MLP with {', '.join(names)} in each layer")
    hidden, inner = mlps[0].down_proj.weight.shape
    unit = next((one for one in (128, 64, 32) if inner % one == 0 and hidden % one == 0), 1)
    size = max(unit, round(inner * job["amount"] / unit) * unit)
    at_once = max(1, GRAMS // (inner * inner * 4))
    for at in range(0, len(mlps), at_once):
        _narrow(model, mlps[at : at + at_once], ids, size)
    for config in _configs(model):
        config.intermediate_size = size
    _save(model, job)
    return {"intermediate_size": size, "samples": len(ids)}


def _narrow(model: Any, mlps: Sequence[Any], ids: Samples, size: int) -> None:
    """min |X W - X_kept V| over all samples: least squares, held to the kept weights' own values.

    Held to zero instead, what few samples show nothing of is forgotten: other text suffers threefold.
    """
    grams: list[Any] = [0.0] * len(mlps)

    def see(at: int, given: Any, _: Any) -> None:
        rows = given.reshape(-1, given.shape[-1]).float()
        grams[at] = grams[at] + rows.T @ rows

    observe(model, [mlp.down_proj for mlp in mlps], see, ids)
    for mlp, gram in zip(mlps, grams, strict=True):
        down = mlp.down_proj.weight.float()
        kept = (gram.diagonal().sqrt() * down.norm(dim=0)).topk(size).indices.sort().values
        left = torch.ones(len(gram), dtype=torch.bool, device=gram.device)
        left[kept] = False
        gone = left.nonzero()[:, 0]
        inner = gram[kept][:, kept]
        inner.diagonal().mul_(1 + HELD).add_(1e-6 * inner.diagonal().mean())
        more = torch.linalg.solve(inner, gram[kept][:, gone] @ down[:, gone].T).T
        fitted = (down[:, kept] + more).to(mlp.down_proj.weight.dtype)
        mlp.down_proj.weight, mlp.down_proj.in_features = _parameter(fitted), size
        for part in (mlp.gate_proj, mlp.up_proj):
            part.weight, part.out_features = _parameter(part.weight[kept]), size
            part.bias = None if part.bias is None else _parameter(part.bias[kept])


def _parameter(values: Any) -> Any:
    return torch.nn.Parameter(values.contiguous(), requires_grad=False)


def _configs(model: Any) -> list[Any]:
    """The model's config, and the one of its text part where that is another."""
    text = model.config.get_text_config(decoder=True)
    return [text] if text is model.config else [model.config, text]


def _stack(model: Any) -> Any:
    """The decoder's layers: the list of as many modules as the config says."""
    count = _configs(model)[-1].num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    if not lists:
        raise ValueError("the decoder's layers were not found in this architecture")
    return lists[-1]


def _keep(model: Any, stack: Any, those: Sequence[Any]) -> None:
    stack._modules.clear()
    stack._modules.update({str(at): layer for at, layer in enumerate(those)})
    _configs(model)[-1].num_hidden_layers = len(those)


def _save(model: Any, job: dict[str, Any]) -> None:
    model.save_pretrained(job["target"])
    copy_rest(job["model"], job["target"])


def _loss(model: Any, ids: Samples) -> float:
    """The mean loss of the samples."""
    total = 0.0
    for one in ids:
        given = torch.tensor([one], device=model.device)
        logits = model(input_ids=given, use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, given[0, 1:]))
    return total / len(ids)


def observe(model: Any, parts: Sequence[Any], see: Callable[[int, Any, Any], None], ids: Samples) -> None:
    """Calls see(number, input, output) of each part while the model reads the samples."""

    def hook(at: int) -> Callable[..., None]:
        def called(_: Any, given: Any, kept: Any, out: Any) -> None:
            see(at, given[0] if given else kept["hidden_states"], out[0] if isinstance(out, tuple) else out)

        return called

    handles = [part.register_forward_hook(hook(at), with_kwargs=True) for at, part in enumerate(parts)]
    try:
        _loss(model, ids)
    finally:
        for handle in handles:
            handle.remove()


def influences(model: Any, stack: Any, ids: Samples) -> list[float]:
    """How far each layer turns what passes through it: 1 - cosine of input and output."""
    sums = [0.0] * len(stack)

    def see(at: int, given: Any, out: Any) -> None:
        sums[at] += 1 - float(torch.cosine_similarity(given.float(), out.float(), dim=-1).mean())

    observe(model, stack, see, ids)
    return [total / len(ids) for total in sums]


def analyse(job: dict[str, Any]) -> dict[str, Any]:
    """Per layer: its distributions, how it turns its input, and what rounding it alone to 4 bits costs."""
    torch.set_grad_enabled(False)
    folder = folder_of(job["model"])
    model, ids = opened(folder), calibration({**job, "model": folder})
    stack, left = _stack(model), left_alone(model, job["left_alone"])
    kept = {id(model.get_submodule(name)) for name in left}
    base, moved, rows = _loss(model, ids), influences(model, stack, ids), []
    for at, layer in enumerate(stack):
        own = [part for part in layer.modules() if isinstance(part, torch.nn.Linear) and id(part) not in kept]
        rows.append({"layer": at, "influence": round(moved[at], 5), **_spread(model, own, ids[:1]),
                     "rise_4_bits": _rise(model, own, ids, base, job["group"])})  # fmt: skip
    return {"perplexity": math.exp(base), "layers": rows}


def _spread(model: Any, own: Sequence[Any], ids: Samples) -> dict[str, float]:
    """Medians over its modules: largest weight in standard deviations, kurtosis, largest input channel."""
    found: dict[str, list[float]] = {"weight_max": [], "weight_kurtosis": [], "input_outlier": []}

    def see(at: int, given: Any, _: Any) -> None:
        z = own[at].weight.float()
        z = (z - z.mean()) / z.std()
        channels = given.abs().float().reshape(-1, given.shape[-1]).amax(0)
        figures = (z.abs().max(), (z**4).mean(), channels.max() / channels.median().clamp(min=1e-9))
        for values, figure in zip(found.values(), figures, strict=True):
            values.append(float(figure))

    observe(model, own, see, ids)
    return {name: round(median(values), 2) for name, values in found.items()}


def _rise(model: Any, own: Sequence[Any], ids: Samples, base: float, group: int) -> float:
    """The relative rise of perplexity when these modules alone are rounded."""
    whole = [part.weight.data for part in own]
    for part in own:
        rows = part.weight.float().reshape(-1, group or part.weight.shape[-1])
        scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 7
        rounded = (rows / scale).round().clamp(-8, 7) * scale
        part.weight.data = rounded.reshape(part.weight.shape).to(part.weight.dtype)
    after = _loss(model, ids)
    for part, weight in zip(own, whole, strict=True):
        part.weight.data = weight
    return round(math.expm1(after - base), 5)
