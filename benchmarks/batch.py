"""Batch services under kill -9: what is submitted twice, and what is lost.

    python benchmarks/batch.py [--kills 30] [--backend openai]

A run is killed at random moments (between 0.3 and 2 seconds after its start, so in its first upload, while a
batch is being created, while it waits) and started again, until so many kills happened; then it may finish.
The servers are loopback ones that keep what they took: tests/support/batch_server.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from batch_server import killed

QUESTIONS = 12
BACKENDS = ("openai", "anthropic", "gemini", "bedrock")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=30)
    words.add_argument("--backend", action="append", choices=BACKENDS)
    chosen = words.parse_args()
    for backend in chosen.backend or BACKENDS:
        questions = 100 if backend == "bedrock" else QUESTIONS
        kills = twice = lost = runs = 0
        while kills < chosen.kills:
            with tempfile.TemporaryDirectory() as folder:
                found = killed(Path(folder), min(6, chosen.kills - kills), questions, backend, seed=runs)
            kills, twice, lost, runs = kills + found[0], twice + found[1], lost + found[2], runs + 1
        print(f"{backend}: {kills} kills in {runs} runs of {questions}: {twice} submitted twice, {lost} lost")


if __name__ == "__main__":
    main()
