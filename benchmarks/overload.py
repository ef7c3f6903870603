"""Runs against servers that can do less than they are asked for, refuse, or count oddly: ratios.

    python benchmarks/overload.py

The client, its retry layer and the run are the real ones; the server and its jumping clock are simulated
(`tests/support/simulated.py`). Each figure is printed with what it must reach; the exit code is 1 if one
does not.
"""

import logging
import sys
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / part) for part in ("support", "run")]

from simulated import Bucket, Server, run  # noqa: E402
from test_adversarial_budget import BUDGET, SERVERS  # noqa: E402

ROW = "{:<52} {:>8} {:>8} {:>7} {:>8}  {}"
missed = False


def row(what: str, figure: float, wanted: str, good: bool, failed: int, posts: float) -> None:
    """One line of the table."""
    global missed
    missed = missed or not good
    print(
        ROW.format(what, f"{figure:.3f}", wanted, failed, f"{posts:.2f}", "" if good else "MISSED"),
        flush=True,
    )


def goodput(what: str, server: Server, count: int, ideal: float, least: float,
            at: dict[float, Callable[[], None]] | None = None, **options: Any) -> None:  # fmt: skip
    """Answers a second, of what the server could give."""
    results, _ = run(server, [f"p{number}" for number in range(count)], at=at, **options)
    share, posts = ideal / (server.last - server.first), server.posts / max(1, results.done)
    failed = count - results.done
    row(what, share, f">= {least:g}", share >= least and not failed and posts <= 1.25, failed, posts)


def slots() -> None:
    """Servers of so many slots, and one whose slots change."""
    for number in (4, 16, 64, 256):
        for finishes in (True, False):
            words = f"{number} slots, {'finishes' if finishes else 'drops'} what clients left"
            server = Server(number, 1.0, finishes=finishes)
            goodput(words, server, 44 * number, 44, 0.9, timeout=20)
    server = Server(16, 1.0)
    changes = {60.0: lambda: server.change(4), 160.0: lambda: server.change(16)}
    goodput("slots 16, 4, 16", server, 2000, 200, 0.85, changes, timeout=20)
    goodput("256 at once, 30 s an answer (of 305 s)", Server(seconds=30.0), 1500, 305, 1.0)


def refusals() -> None:
    """Token buckets, with and without a word about when to come again."""
    hints: dict[str, Callable[[float], Any]] = {
        "no header": lambda wait: {},
        "Retry-After": lambda wait: {"retry-after": str(ceil(wait))},
        "retry-after-ms": lambda wait: {"retry-after-ms": str(wait * 1000)},
    }
    for a_second, at_once, count in ((10, 10, 600), (5, 25, 375)):
        for name, hint in hints.items():
            server = Server(seconds=0.5, refuse=Bucket(a_second, at_once, hint))
            ideal = (count - at_once) / a_second
            goodput(f"429 above {a_second}/s, {at_once} at once, {name}", server, count, ideal, 0.9)


def budgets() -> None:
    """What was billed, of the budget; one request's worst case is what cannot be helped."""
    for name, (requests, how, limits, worst) in SERVERS.items():
        for concurrency in (None, 256):
            server = Server(**how)
            server.tells = name != "counts nothing"
            results, _ = run(server, requests, budget=f"{BUDGET}tok", concurrency=concurrency, **limits)
            most = 1 + worst / BUDGET
            share, posts = server.billed / BUDGET, server.posts / max(1, results.done)
            words = f"budget: {name}" + (f", concurrency {concurrency}" if concurrency else "")
            row(words, share, f"<= {most:.2f}", share <= most, 0, posts)


if __name__ == "__main__":
    logging.disable(logging.ERROR)
    print(ROW.format("server", "of ideal", "wanted", "failed", "posts", ""))
    slots()
    refusals()
    budgets()
    sys.exit(missed)
