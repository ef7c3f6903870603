"""Wrong answers out of damaged files: `python benchmarks/flips.py [--trials 10000] [--seed 0]`.

Each trial flips 1, 3, 10 or 40 bits of a run's answers, of its failures or of its cache, and runs the same
requests again, with a repair where the run refuses. Counted: answers that are not their request's, and what
is raised that is none of memserve's errors. Both must be 0.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput, MemserveError
from memserve.protocol import Capabilities, Completion, Usage
from memserve.run import answers, run
from memserve.run.store import journal

REQUESTS = [{"id": f"q{n}", "prompt": f"prompt {n}" if n % 4 else f"wrong {n}"} for n in range(16)]
RIGHT = {row["id"]: row["prompt"].upper() for row in REQUESTS}


class Shouts:
    """The prompt in capitals, or a refusal; the second time everything is answered."""

    capabilities = Capabilities(backend="shouts", model="m")

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses

    async def agenerate(self, prompt: str, **_: Any) -> Completion:
        if self.refuses and prompt.startswith("wrong"):
            raise InvalidInput("no")
        return Completion(prompt.upper(), "stop", usage=Usage(10, 5))


def asked(output: Path, cache: Path | None = None, *, refuses: bool = False) -> None:
    """One run of all requests."""
    run(REQUESTS, output, generator=Shouts(refuses), cache=cache, progress=False)  # type: ignore[arg-type]


def flipped(data: bytes, dice: random.Random) -> bytes:
    """The bytes with some bits changed."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 3, 10, 40))):
        found[dice.randrange(len(found))] ^= 1 << dice.randrange(8)
    return bytes(found)


def wrong(output: Path) -> int:
    """Answers that are not their request's."""
    rows = list(answers(output)) if output.exists() else []
    return sum(RIGHT.get(row["id"]) != row["text"] for row in rows)


def trial(folder: Path, kept: dict[str, bytes], dice: random.Random) -> str:
    """What came of one damaged file."""
    output, cache = folder / "a.jsonl", folder / "cache.sqlite"
    for path in folder.iterdir():
        path.unlink()
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    target = dice.choice(sorted(kept))
    (folder / target).write_bytes(flipped(kept[target], dice))
    if target == cache.name:
        output = folder / "again.jsonl"
    try:
        asked(output, cache if target == cache.name else None)
    except MemserveError:
        if target != output.name:
            return f"{target}: refused"
        journal.repair(output)
        asked(output)
        return f"{target}: refused, then repaired" if not wrong(output) else "wrong"
    return f"{target}: answered" if not wrong(output) else "wrong"


def outcome(folder: Path, kept: dict[str, bytes], dice: random.Random) -> str:
    """The same, whatever is raised."""
    try:
        return trial(folder, kept, dice)
    except Exception as broken:
        return f"raised {type(broken).__name__}: {broken}"[:90]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--trials", type=int, default=10_000)
    words.add_argument("--seed", type=int, default=0)
    chosen = words.parse_args()
    logging.disable(logging.CRITICAL)
    dice, came = random.Random(chosen.seed), Counter[str]()
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as name:
        folder = Path(name)
        asked(folder / "a.jsonl", folder / "cache.sqlite", refuses=True)
        kept = {path.name: path.read_bytes() for path in folder.iterdir()}
        for _ in range(chosen.trials):
            came[outcome(folder, kept, dice)] += 1
    for what, count in came.most_common():
        print(f"{count:7} {what}")
    bad = sum(count for what, count in came.items() if what.startswith(("wrong", "raised")))
    print(f"{bad} wrong of {chosen.trials}: must be 0")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
