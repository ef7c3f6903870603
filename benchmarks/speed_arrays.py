"""The speed model over all published rows at once: what `memserve.speed.roofline` computes, with numpy.

A calibration predicts every row thousands of times; one by one that takes an hour, together a minute.
`differences` says how far the two are apart: nothing but rounding.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import speed_rows
from scipy.special import gammaln

from memserve.speed.roofline import layout, queueing, step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from speed_rows import Row

FIELDS = tuple(field.name for field in fields(layout.Constants))
FLAGS = ("reserves", "mixes", "overlaps")
SHAPE = ("layers", "hidden", "mixing", "dense", "expert", "experts", "experts_per_token", "expert_layers",
         "plain", "resident", "vocabulary")  # fmt: skip
PARTS = ("layers", "elements", "width", "latent", "state")


class Record:
    """Names with an array each, one value a row."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.__dict__.update(arrays)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)

    def part(self, chosen: Any) -> Record:
        """Some of the rows."""
        return Record({name: found[chosen] for name, found in self.__dict__.items()})


def table(rows: Sequence[Row]) -> Record:
    """Everything of some rows that a prediction needs, and by what they are chosen."""
    seen = [speed_rows.situation(row) for row in rows]
    found: dict[str, Any] = {name: _each(seen, lambda s, n=name: getattr(s.setup.shape, n)) for name in SHAPE}
    found |= _parts(seen)
    found |= {
        "bits": _each(seen, lambda s: s.setup.format.bits),
        "weight_only": _each(seen, lambda s: s.setup.format.weight_only) > 0,
        "experts_only": _each(seen, lambda s: s.setup.format.experts_only) > 0,
        "four": _each(seen, lambda s: s.setup.format.dtype == "float4") > 0,
        "flops": _each(seen, lambda s: s.setup.flops),
        "plain_flops": _each(seen, lambda s: s.setup.plain_flops),
        "bandwidth": _each(seen, lambda s: s.setup.card.bandwidth),
        "memory": _each(seen, lambda s: s.setup.card.memory),
        "link": _each(seen, lambda s: s.setup.link or 1.0),
        "tensor": _each(seen, lambda s: s.setup.tensor), "pipeline": _each(seen, lambda s: s.setup.pipeline),
        "sharing": _each(seen, lambda s: s.setup.sharing),
        "kv_bytes": _each(seen, lambda s: s.setup.kv_bytes),
        "sequences": _each(seen, lambda s: s.limits.sequences),
        "tokens": _each(seen, lambda s: s.limits.tokens),
        "sampler": _each(seen, lambda s: s.limits.sampler_bytes),
        "replicas": _each(seen, lambda s: s.spread.replicas),
        "asked": _each(seen, lambda s: np.nan if s.each is None else s.each),
        "engine": np.array([s.engine for s in seen]),
        "generation": np.array([str(s.generation) for s in seen]),
        "family": np.array([layout.family(s.setup.card) for s in seen]),
        "prompt": np.array([row.input_tokens for row in rows], float),
        "answer": np.array([row.output_tokens for row in rows], float),
        "figure": np.array([row.figure for row in rows]), "value": np.array([row.value for row in rows]),
        "row": np.array(rows, object),
    }  # fmt: skip
    for flag in FLAGS:
        found[flag] = (
            _each(seen, lambda s, f=flag: layout.facts(s.engine).get("constants", {}).get(f, False)) > 0
        )
    return Record(found)


def _each(seen: Sequence[Any], value: Any) -> Any:
    return np.array([float(value(one)) for one in seen])


def _parts(seen: Sequence[Any]) -> dict[str, Any]:
    """Kinds of attention side by side; what a model lacks has no layers."""
    most = max(len(one.setup.shape.attentions) for one in seen)

    def spread(value: Any, empty: float = 0.0) -> Any:
        lists = ([float(value(part)) for part in one.setup.shape.attentions] for one in seen)
        return np.array([found + [empty] * (most - len(found)) for found in lists])

    found = {f"a_{name}": spread(lambda part, n=name: getattr(part, n)) for name in PARTS}
    return found | {
        "a_window": spread(lambda part: part.window or np.inf, np.inf),
        "a_heads": spread(lambda part: max(1, part.kv_heads), 1.0),
        "a_prompt": spread(step._prompt_width),
    }


def constants(rows: Record, values: Mapping[tuple[str, str], float]) -> Record:
    """Each row's constants from fitted values, as `layout.constants` builds them from the files."""
    found = {name: np.full(len(rows.value), default) for name, default in _defaults().items()}
    for scope in ("default", *dict.fromkeys(rows.engine)):
        for name, value in _of(values, scope).items():
            found[name] = np.where((scope == "default") | (rows.engine == scope), value, found[name])
    for kind, names in (("card", rows.family), ("generation", rows.generation)):
        for name in dict.fromkeys(names):
            for constant, factor in _of(values, f"{kind} {name}").items():
                found[constant] = np.where(names == name, factor, 1.0) * found[constant]
    return Record(found | {flag: getattr(rows, flag) for flag in FLAGS})


def _defaults() -> dict[str, float]:
    return {field.name: float(field.default) for field in fields(layout.Constants)}  # type: ignore[arg-type]


def _of(values: Mapping[tuple[str, str], float], scope: str) -> dict[str, float]:
    return {name: value for (where, name), value in values.items() if where == scope}


def soft_max(*times: Any) -> Any:
    largest = np.maximum(np.maximum.reduce(np.broadcast_arrays(*times)), 1e-300)
    return largest * sum((one / largest) ** step.SHARP for one in times) ** (1 / step.SHARP)


def _weights(d: Record, k: Record, tokens: Any) -> Any:
    rest = np.where(d.experts_only, 16.0, d.bits)
    read = d.experts if tokens is None else _touched(d, k.evenness, tokens * d.sharing)
    quantized = (d.mixing + d.dense) * rest + d.expert * read * d.bits / d.sharing
    plain = d.plain + (d.resident if tokens is None else 0)
    return (quantized + plain * np.maximum(d.bits, 16.0)) / 8 / d.tensor


def _touched(d: Record, even: Any, tokens: Any) -> Any:
    rest = np.maximum(even * (d.experts / np.maximum(d.experts_per_token, 1) - 1), 1e-9)
    missed = gammaln(rest + tokens) + gammaln(even + rest) - gammaln(rest) - gammaln(even + rest + tokens)
    return d.experts * (1 - np.exp(missed))


def _cache(d: Record, tokens: Any) -> Any:
    split = np.where(d.a_latent > 0, 1, np.minimum(d.tensor[:, None], d.a_heads))
    seen = np.minimum(tokens[:, None], d.a_window)
    each = d.a_layers * (seen * d.a_elements / split + d.a_state / d.tensor[:, None])
    return each.sum(1) * d.kv_bytes / d.pipeline


def _linear(d: Record, k: Record, tokens: Any, efficiency: Any) -> Any:
    read = _weights(d, k, tokens) / (d.bandwidth * k.weights * np.where(d.weight_only, k.unpack, 1))
    fast = d.flops * efficiency * np.where(d.weight_only, k.unpack_gemm, 1)
    slow = np.where(d.experts_only, d.plain_flops * efficiency, fast)
    dense = (d.mixing + d.dense + d.plain) * tokens / slow
    return soft_max(
        read, 2 * (dense + d.expert * d.experts_per_token * tokens / (fast * k.experts)) / d.tensor
    )


def _attention(d: Record, k: Record, rows: Any, context: Any) -> Any:
    read = rows * _cache(d, context) * d.pipeline / (d.bandwidth * k.cache)
    seen = np.minimum(context[:, None], d.a_window)
    done = (2 * d.a_layers * rows[:, None] * seen * d.a_width).sum(1) / d.tensor
    return soft_max(read, done / (d.plain_flops * k.gemm))


def _traffic(d: Record, k: Record, tokens: Any) -> Any:
    reduced = 2 * d.layers * tokens * d.hidden * 4 * (d.tensor - 1) / d.tensor
    shared = d.expert_layers * tokens * d.experts_per_token * d.hidden * 3 / d.tensor
    return (reduced + np.where(d.sharing > 1, shared, 0)) / (d.link * k.link)


def _collectives(d: Record, k: Record, rows: Any) -> Any:
    waits = np.where(d.tensor > 1, 2 * d.layers, 0) + np.where(d.sharing > 1, 2 * d.expert_layers, 0)
    return (waits + d.pipeline - 1) * k.reduce_s + _traffic(d, k, rows)


def _latents(d: Record) -> Any:
    return (d.a_layers * (d.a_latent > 0)).sum(1)


def _decode(d: Record, k: Record, batch: Any, context: Any) -> Any:
    rows = np.maximum(1, batch / d.pipeline)
    card = _linear(d, k, rows, k.gemm) + _attention(d, k, rows, context)
    layers = d.layers * (k.layer_s + np.where(d.bits < 16, k.quantized_layer_s, 0))
    launch = layers + d.expert_layers * k.expert_s + _latents(d) * k.latent_s
    work = np.where(k.overlaps, soft_max(card, launch), card + launch)
    return work + _collectives(d, k, rows) + k.step_s + rows * k.sequence_s


def _prompt(d: Record, k: Record, together: Any, inside: Any) -> tuple[Any, Any, Any]:
    """Chunks of each prompt, the card's time for one, and that there is a prompt at all."""
    chunk = np.maximum(np.minimum(d.prompt * together, d.tokens), 1e-9)
    beside = np.where(k.mixes & (inside > 1), np.maximum(1, inside - 1), 0)
    linear = _linear(d, k, chunk + beside, k.prefill)
    linear -= np.where(beside > 0, _linear(d, k, np.maximum(beside, 1e-9), k.prefill), 0)
    seen = np.minimum(d.prompt[:, None] / 2, d.a_window)
    done = (2 * d.a_layers * chunk[:, None] * seen * d.a_prompt).sum(1) / d.tensor
    exchange = np.where(beside > 0, _traffic(d, k, chunk), _collectives(d, k, chunk))
    return d.prompt / chunk, linear + done / (d.plain_flops * k.attention) + exchange, d.prompt > 0


def _prompts(d: Record, k: Record, inside: Any) -> tuple[Any, Any, Any]:
    host = d.layers * k.first_layer_s + _latents(d) * k.first_latent_s
    host += np.where(d.four, 0, d.expert_layers) * k.first_expert_s
    full = np.maximum(1, np.minimum(inside, d.tokens / np.maximum(d.prompt, 1e-9)))
    chunks, work, there = _prompt(d, k, np.maximum(1, inside / np.maximum(d.answer, 1)), inside)
    prompt = chunks * (work + d.layers * k.prompt_s + d.expert_layers * k.expert_prompt_s)
    first, crowded = (
        chunks * soft_max(k.reads * work, host)
        for chunks, work, _ in (_prompt(d, k, together, inside) for together in (1.0, full))
    )
    return tuple(np.where(there, one, 0) for one in (first, prompt, crowded))  # type: ignore[return-value]


def _burst(asked: Any) -> Any:
    return np.clip(np.log2(np.maximum(np.nan_to_num(asked), 1) / queueing.MANY), 0, 1)


def _settled(d: Record, k: Record, inside: Any, asked: Any) -> tuple[Any, Any, Any]:
    later, running = np.maximum(d.answer - 1, 1e-9), np.minimum(inside, k.slots)
    first, prompt, crowded = _prompts(d, k, inside)
    longest = prompt * np.maximum(1, d.tokens / np.maximum(d.prompt, 1))
    others = k.stall * np.minimum((inside - 1) * prompt / np.maximum(d.answer, 1), longest)
    decoding, done = running.copy(), np.zeros(len(inside), bool)
    tpot, rate, own = np.zeros_like(inside), np.zeros_like(inside), np.zeros_like(inside)
    for _ in range(queueing.ROUNDS):
        now = _decode(d, k, decoding, d.prompt + d.answer / 2)
        each = now + others - k.overlap * np.minimum(now, others)
        share = later * now / decoding
        most = 1 / np.maximum(prompt + share - k.overlap * np.minimum(prompt, share), 1e-9)
        reading = np.maximum(prompt, first) + k.first_s + k.polls * each
        served = np.minimum(running / (reading + later * each), most)
        fresh = np.minimum(running, np.maximum(1, served * later * each))
        own, tpot, rate = (np.where(done, *pair) for pair in ((own, now), (tpot, each), (rate, served)))
        still = np.abs(fresh - decoding) < queueing.CLOSE * decoding
        decoding = np.where(done, decoding, (decoding + fresh) / 2)
        done |= still
        if done.all():
            break
    ttft = _ttft(d, k, inside, asked, (first, crowded, tpot, rate))
    return ttft, _tpot(d, k, inside, asked, (own, tpot, rate, prompt, longest)), rate


def _ttft(d: Record, k: Record, inside: Any, asked: Any, times: tuple[Any, ...]) -> Any:
    first, crowded, tpot, rate = times
    burst = _burst(asked)
    waits = crowded * (inside - 1) * np.maximum(k.queue, burst * queueing.BURST * k.crowd)
    out = np.maximum(0, np.nan_to_num(asked) - inside)
    waits += out * (1 - burst * (1 - out / np.maximum(np.nan_to_num(asked), 1) / 2)) / rate
    return (
        k.first_s
        + k.polls * tpot
        + first
        + waits * np.where(inside <= k.slots, 1 + burst * (k.unequal - 1), 1)
    )


def _tpot(d: Record, k: Record, inside: Any, asked: Any, times: tuple[Any, ...]) -> Any:
    own, tpot, rate, prompt, longest = times
    spread = 1 + (k.short - 1) * np.minimum(1, d.answer / np.maximum(d.prompt, 1))
    stall = queueing.BURST * spread * (inside - 1) * prompt / np.maximum(d.answer, 1)
    stall = k.crowd * np.where(k.mixes, np.minimum(stall, longest), stall)
    held = (inside - np.minimum(inside, k.slots)) / rate / np.maximum(d.answer - 1, 1e-9)
    stall = np.maximum(stall, queueing.BURST * spread * held)
    at_once = own + stall - k.overlap * np.minimum(own, stall)
    return tpot + held + _burst(asked) * np.maximum(0, at_once - tpot - held)


def _rate(d: Record, k: Record, inside: Any, steady: Any) -> Any:
    """Requests per second where tests send all at once."""
    many = np.full_like(inside, float(queueing.MANY))
    fewer = _settled(d, k, np.minimum(inside, many), many)[2]
    unequal = np.minimum(1, d.answer / np.maximum(d.prompt, 1))
    alone = _decode(d, k, np.ones_like(inside), d.prompt + d.answer / 2)
    drained = d.asked / (d.asked / steady + (k.tail - 1) * unequal * d.answer * alone)
    return np.minimum(steady, np.maximum(fewer, steady + _burst(d.asked) * (drained - steady)))


def predict(d: Record, values: Mapping[tuple[str, str], float]) -> Any:
    """Each row's figure by these values."""
    k = constants(d, values)
    holds = d.prompt + np.where(k.reserves, d.answer, d.answer / 2)
    free = queueing.UTILIZATION * d.memory - _weights(d, k, None) / d.pipeline - queueing.RESERVE
    free = np.maximum(0, free - d.sampler * d.sequences * d.vocabulary)
    held = np.maximum(1, free / np.maximum(1, _cache(d, holds)))
    inside = np.maximum(1, np.fmin(np.minimum(d.sequences * d.pipeline, held), d.asked))
    ttft, tpot, rate = _settled(d, k, inside, d.asked)
    circle = ttft + np.maximum(d.answer - 1, 1e-9) * tpot
    rate = np.where(_burst(d.asked) > 0, rate, np.fmin(rate, d.asked / circle))
    crowd = np.flatnonzero(_burst(d.asked) > 0)
    if len(crowd):
        rate[crowd] = _rate(d.part(crowd), k.part(crowd), inside[crowd], rate[crowd])
    whole = (d.prompt + d.answer) / (ttft + d.answer * tpot)
    found = {"tpot": tpot, "ttft": ttft, "throughput": rate * d.answer * d.replicas}
    return np.select([d.figure == name for name in found], list(found.values()), whole)


def differences(d: Record, values: Mapping[tuple[str, str], float]) -> float:
    """The largest relative difference to the scalar code with the constants of the files."""
    one_by_one = [speed_rows.predicted(row, speed_rows.situation(row)) for row in d.row]
    return float(np.abs(predict(d, values) / np.array(one_by_one) - 1).max())
