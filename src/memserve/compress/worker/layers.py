"""What each layer does, and models with fewer or narrower ones, which every engine reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any

from memserve.compress.worker.model import calibration, copy_rest, folder_of, left_alone, opened

TRIED = 6
"""Layers of the least influence whose loss is measured before one of them goes."""
JUDGED = 4
"""Samples that it is measured on."""
GRAMS = 2 << 30
"""Bytes of activation products that are held at once."""
COUNTED = ("first_k_dense_replace", "max_window_layers")
"""Fields that say how many of the first layers are of a kind."""


def layers(job: dict[str, Any]) -> dict[str, Any]:
    """Drops the layers without which the loss rises least."""
    model, ids = opened(job["model"]), calibration(job)
    stack, influence = stack_of(model), []
    whole = len(stack)
    influence = influences(model, stack, ids)
    gone: list[int] = []
    everything = list(stack)
    for _ in range(int(job["amount"])):
        left = [at for at in range(whole) if at not in gone]
        tried = sorted(left, key=lambda at: influence[at])[:TRIED]
        worst = {at: _loss_without(model, stack, everything, [*gone, at], ids[:JUDGED]) for at in tried}
        gone.append(min(worst, key=lambda at: worst[at]))
    kept = [at for at in range(whole) if at not in gone]
    _keep(stack, [everything[at] for at in kept])
    _shorten(model.config, whole, kept)
    if (text := model.config.get_text_config(decoder=True)) is not model.config:
        _shorten(text, whole, kept)
    _save(model, job)
    return {"dropped": sorted(gone), "influence": [round(one, 5) for one in influence]}


def width(job: dict[str, Any]) -> dict[str, Any]:
    """Keeps the share of each MLP that matters most, and refits its output to what the whole one said."""
    import torch

    model, ids = opened(job["model"]), calibration(job)
    mlps = [part for part in model.modules()
            if all(hasattr(part, name) for name in ("gate_proj", "up_proj", "down_proj"))]  # fmt: skip
    if len(mlps) != len(stack_of(model)):
        raise ValueError("width:R needs one MLP with gate_proj, up_proj and down_proj in each layer")
    inner = mlps[0].down_proj.in_features
    size = narrower(inner, mlps[0].down_proj.out_features, float(job["amount"]))
    step = max(1, GRAMS // (inner * inner * 4))
    for at in range(0, len(mlps), step):
        for mlp, gram in zip(mlps[at : at + step], _grams(model, mlps[at : at + step], ids), strict=True):
            with torch.no_grad():
                _narrow(mlp, gram, size)
    for config in {
        id(one): one for one in (model.config, model.config.get_text_config(decoder=True))
    }.values():
        config.intermediate_size = size
    _save(model, job)
    return {"intermediate_size": size}


def stack_of(model: Any) -> Any:
    """The decoder's layers: the list of as many modules as the config says."""
    import torch

    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count]
    if not lists:
        raise ValueError("the decoder's layers were not found in this architecture")
    return lists[-1]


def influences(model: Any, stack: Any, ids: Sequence[list[int]]) -> list[float]:
    """How far each layer turns what passes through it: 1 - cosine of input and output."""
    import torch

    sums = [0.0] * len(stack)

    def hook(at: int) -> Callable[..., None]:
        def see(_: Any, given: Any, kept: Any, out: Any) -> None:
            before = given[0] if given else kept["hidden_states"]
            after = out[0] if isinstance(out, tuple) else out
            sums[at] += 1 - float(torch.cosine_similarity(before.float(), after.float(), dim=-1).mean())

        return see

    with hooked([layer.register_forward_hook(hook(at), with_kwargs=True) for at, layer in enumerate(stack)]):
        for one in ids:
            loss(model, one)
    return [total / len(ids) for total in sums]


@contextmanager
def hooked(handles: Sequence[Any]) -> Iterator[None]:
    """Hooks for a while."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def loss(model: Any, ids: list[int]) -> float:
    """The mean loss of one window."""
    import torch

    given = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=given, use_cache=False).logits[0, :-1].float()
        return float(torch.nn.functional.cross_entropy(logits, given[0, 1:]))


def narrower(inner: int, hidden: int, share: float) -> int:
    """The new width: a multiple that later groups still divide."""
    step = next((one for one in (128, 64, 32) if inner % one == 0 and hidden % one == 0), 1)
    return max(step, round(inner * share / step) * step)


def _loss_without(model: Any, stack: Any, everything: Sequence[Any], gone: Sequence[int],
                  ids: Sequence[list[int]]) -> float:  # fmt: skip
    _keep(stack, [layer for at, layer in enumerate(everything) if at not in gone])
    config = model.config.get_text_config(decoder=True)
    whole, config.num_hidden_layers = config.num_hidden_layers, len(stack)
    try:
        return sum(loss(model, one) for one in ids)
    finally:
        config.num_hidden_layers = whole
        _keep(stack, everything)


def _keep(stack: Any, those: Sequence[Any]) -> None:
    stack._modules.clear()
    stack._modules.update({str(at): layer for at, layer in enumerate(those)})


def _shorten(config: Any, whole: int, kept: Sequence[int]) -> None:
    """Every field that counts or lists the layers."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == whole:
            setattr(config, name, [value[at] for at in kept])
        elif name in COUNTED and isinstance(value, int):
            setattr(config, name, sum(at < value for at in kept))
    config.num_hidden_layers = len(kept)


def _grams(model: Any, mlps: Sequence[Any], ids: Sequence[list[int]]) -> list[Any]:
    """The products of what each MLP's last matrix is given, summed over the samples."""
    import torch

    sums: list[Any] = [0.0] * len(mlps)

    def hook(at: int) -> Callable[..., None]:
        def see(_: Any, given: Any) -> None:
            rows = given[0].reshape(-1, given[0].shape[-1]).float()
            sums[at] = sums[at] + rows.T @ rows

        return see

    with hooked([mlp.down_proj.register_forward_pre_hook(hook(at)) for at, mlp in enumerate(mlps)]):
        for one in ids:
            loss(model, one)
    return [torch.as_tensor(one) for one in sums]


def _narrow(mlp: Any, gram: Any, size: int) -> None:
    """min |X W' - X_kept V|: the least squares of the kept columns, a hundredth of their mean added."""
    import torch

    down = mlp.down_proj.weight
    score = gram.diagonal().sqrt() * down.float().norm(dim=0)
    kept = score.topk(size).indices.sort().values
    inner = gram[kept][:, kept]
    inner = inner + torch.eye(size, device=inner.device) * (0.01 * inner.diagonal().mean())
    fitted = torch.linalg.solve(inner, gram[kept] @ down.float().T).T
    _replace(mlp.down_proj, fitted.to(down.dtype), mlp.down_proj.bias, "in_features", size)
    for part in (mlp.gate_proj, mlp.up_proj):
        bias = None if part.bias is None else part.bias[kept]
        _replace(part, part.weight[kept].clone(), bias, "out_features", size)


def _replace(part: Any, weight: Any, bias: Any, field: str, size: int) -> None:
    import torch

    part.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        part.bias = torch.nn.Parameter(bias.contiguous(), requires_grad=False)
    setattr(part, field, size)


def _save(model: Any, job: dict[str, Any]) -> None:
    model.save_pretrained(job["target"])
    copy_rest(job["model"], job["target"])


def analyse(job: dict[str, Any]) -> dict[str, Any]:
    """Per layer: its distributions, how it turns its input, and what rounding it alone to 4 bits costs."""
    folder = folder_of(job["model"])
    model, ids = opened(folder), calibration({**job, "model": folder})
    stack, kept = stack_of(model), set(left_alone(model, job["left_alone"]))
    base, moved = sum(loss(model, one) for one in ids) / len(ids), influences(model, stack, ids)
    rows = []
    for at, layer in enumerate(stack):
        name = next(name for name, part in model.named_modules() if part is layer)
        own = [
            part
            for inner, part in layer.named_modules()
            if _is_linear(part) and f"{name}.{inner}" not in kept
        ]
        rows.append({"layer": at, "influence": round(moved[at], 5), **_spread(model, own, ids[0]),
                     "rise_4_bits": _rise(model, own, ids, base, job["group"])})  # fmt: skip
    return {"perplexity": math.exp(base), "layers": rows}


def _is_linear(part: Any) -> bool:
    import torch

    return isinstance(part, torch.nn.Linear)


def _spread(model: Any, own: Sequence[Any], ids: list[int]) -> dict[str, float]:
    """Medians over its modules: largest weight in standard deviations, kurtosis, largest input channel."""
    given: list[float] = []

    def see(_: Any, inputs: Any) -> None:
        channels = inputs[0].detach().abs().float().reshape(-1, inputs[0].shape[-1]).amax(0)
        given.append(float(channels.max() / channels.median().clamp(min=1e-9)))

    with hooked([part.register_forward_pre_hook(see) for part in own]):
        loss(model, ids)
    weights = [part.weight.detach().float() for part in own]
    scores = [(weight - weight.mean()) / weight.std() for weight in weights]
    found = {"weight_max": [float(z.abs().max()) for z in scores],
             "weight_kurtosis": [float((z**4).mean()) for z in scores], "input_outlier": given}  # fmt: skip
    return {name: round(median(values), 2) for name, values in found.items() if values}


def _rise(model: Any, own: Sequence[Any], ids: Sequence[list[int]], base: float, group: int) -> float:
    """The relative rise of perplexity when these modules alone are rounded."""
    whole = [part.weight.data for part in own]
    for part in own:
        part.weight.data = _rounded(part.weight.data, group)
    after = sum(loss(model, one) for one in ids) / len(ids)
    for part, weight in zip(own, whole, strict=True):
        part.weight.data = weight
    return round(math.expm1(after - base), 5)


def _rounded(weight: Any, group: int) -> Any:
    rows = weight.float().reshape(-1, group) if group else weight.float()
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 7
    return ((rows / scale).round().clamp(-8, 7) * scale).reshape(weight.shape).to(weight.dtype)
