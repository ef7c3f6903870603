"""The benchmark's own retrieval measures: recall_any, recall_all and ndcg_any at k."""

from __future__ import annotations

import math
from collections.abc import Sequence

from examples.longmemeval.data import Instance

AT = (1, 3, 5, 10, 30, 50)


def measured(ranking: Sequence[int], names: Sequence[str], k: int) -> tuple[float, float, float]:
    """recall_any, recall_all and ndcg_any of documents with these names."""
    wanted = {name for name in names if "answer" in name}
    return _measured(ranking, names, wanted, k)


def by_session(ranking: Sequence[int], names: Sequence[str], k: int) -> tuple[float, float, float]:
    """The same for a ranking of turns, as sessions: so many turns that k sessions are among them."""
    wanted = {_session(name) for name in names if "answer" in name}
    sessions = [_session(name) for name in names]
    seen: set[str] = set()
    reached = k
    for count, place in enumerate(ranking, 1):
        seen.add(sessions[place])
        if count >= k and len(seen) >= k:
            reached = count
            break
    else:
        reached = len(ranking) + 1
    return _measured(ranking, sessions, wanted, max(k, reached))


def counts(one: Instance) -> bool:
    """Whether the benchmark's averages count it: it can be answered, from something that the user said."""
    said = (turn for session in one.sessions for turn in session if turn["role"] == "user")
    return not one.unanswerable and any(turn.get("has_answer") for turn in said)


def _measured(
    ranking: Sequence[int], names: Sequence[str], wanted: set[str], k: int
) -> tuple[float, float, float]:
    found = {names[place] for place in ranking[:k]}
    return float(bool(wanted & found)), float(wanted <= found), _ndcg(ranking, names, wanted, k)


def _ndcg(ranking: Sequence[int], names: Sequence[str], wanted: set[str], k: int) -> float:
    gains = [1.0 if name in wanted else 0.0 for name in names]
    ideal = _dcg(sorted(gains, reverse=True)[:k])
    return _dcg([gains[place] for place in ranking[:k]]) / ideal if ideal else 0.0


def _dcg(gains: Sequence[float]) -> float:
    """The first two places count whole, the place i after them by log2 i."""
    return sum(gain / math.log2(max(2, place)) for place, gain in enumerate(gains, 1))


def _session(name: str) -> str:
    return "_".join(name.split("_")[:-1])
