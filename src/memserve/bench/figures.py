"""What many timed requests say together: times in milliseconds, rates, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from memserve.bench.asking import Asked


def spread(values: Iterable[float]) -> dict[str, float] | None:
    """Mean and percentiles; None of nothing."""
    import numpy as np

    found = np.fromiter(values, float)
    if not found.size:
        return None
    middle, most, last = np.percentile(found, (50, 90, 99))
    shown = {"mean": found.mean(), "p50": middle, "p90": most, "p99": last}
    return {name: round(float(value), 3) for name, value in shown.items()}


def first_ms(one: Asked) -> float:
    """From sending to the first piece."""
    return (one.pieces[0] - one.began) * 1e3


def token_ms(one: Asked) -> float:
    """Mean time of each token after the first."""
    return (one.pieces[-1] - one.pieces[0]) * 1e3 / ((one.usage.completion_tokens or 0) - 1)


def of(asked: Sequence[Asked], *, ttft: float | None = None, tpot: float | None = None) -> dict[str, Any]:
    """One row of the report; `ttft` and `tpot` are targets in milliseconds, which goodput counts."""
    good = [one for one in asked if one.error is None]
    seconds = max((one.ended for one in asked), default=0.0) - min((one.began for one in asked), default=0.0)
    streamed = [one for one in good if one.pieces]
    timed = [one for one in streamed if (one.usage.completion_tokens or 0) > 1]
    made = sum(one.usage.completion_tokens or 0 for one in good)
    met = [one for one in streamed if _meets(one, ttft, tpot)]
    return {
        "requests": len(asked), "failed": len(asked) - len(good), "errors": _errors(asked),
        "seconds": round(seconds, 3),
        "in_flight": _rate(sum(one.ended - one.began for one in asked), seconds),
        "input_tokens": _mean([one.usage.prompt_tokens or 0 for one in good]),
        "output_tokens": _mean([one.usage.completion_tokens or 0 for one in good]),
        "cached_tokens": _mean([one.usage.cached_tokens or 0 for one in good]),
        "ttft_ms": spread(map(first_ms, streamed)), "tpot_ms": spread(map(token_ms, timed)),
        "gap_ms": spread((after - old) * 1e3 for one in streamed for old, after in pairwise(one.pieces)),
        "request_ms": spread((one.ended - one.began) * 1e3 for one in good),
        "output_tokens_per_s": _rate(made, seconds), "requests_per_s": _rate(len(good), seconds),
        "goodput_per_s": None if ttft is None and tpot is None else _rate(len(met), seconds),
    }  # fmt: skip


def _meets(one: Asked, ttft: float | None, tpot: float | None) -> bool:
    slow = tpot is not None and (one.usage.completion_tokens or 0) > 1 and token_ms(one) > tpot
    return not slow and (ttft is None or first_ms(one) <= ttft)


def _errors(asked: Sequence[Asked]) -> dict[str, int]:
    """Reasons with their counts, the commonest first."""
    reasons = Counter(str(one.error).splitlines()[0][:200] for one in asked if one.error is not None)
    return dict(reasons.most_common(5))


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 2) if values else None


def _rate(count: float, seconds: float) -> float | None:
    return round(count / seconds, 4) if seconds > 0 else None
