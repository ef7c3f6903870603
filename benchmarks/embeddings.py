"""Embeddings against sentence-transformers, side by side: texts a CPU second, and every pair's cosine.

python benchmarks/embeddings.py MODEL [--backend hf|embedded] [--pairs 9] [--texts 1000]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: waiting threads must not look like work
THREADS = 2
LENGTHS = (3, 6, 12, 25, 50, 100, 200)


def mixed_texts(count: int) -> list[str]:
    """Texts of a few words to a page, the same in every run."""
    words = (Path(__file__).parents[1] / "LICENSE").read_text(encoding="utf-8").split()
    random = Random(7)
    texts = []
    for _ in range(count):
        length = random.choice(LENGTHS)
        start = random.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    return texts


def timed(work: Any, texts: list[str]) -> tuple[float, float, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    made = work(texts)
    return time.process_time() - cpu, time.perf_counter() - wall, made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--backend", choices=("hf", "embedded"), default="hf")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--texts", type=int, default=1000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    import memserve

    torch.set_num_threads(THREADS)
    texts = mixed_texts(given.texts)
    reference = SentenceTransformer(given.model, device="cpu")
    named = given.model if given.backend == "hf" else None
    ratios, rates, lowest = [], [], 1.0
    with memserve.embedder(named, backend=given.backend, threads=THREADS) as embedder:
        embedder.embed(texts[:8])
        reference.encode(texts[:8])
        for _ in range(given.pairs):
            ours, _wall, made = timed(embedder.embed, texts)
            theirs, _wall, wanted = timed(reference.encode, texts)
            norms = np.linalg.norm(made.vectors, axis=1) * np.linalg.norm(wanted, axis=1)
            lowest = min(lowest, float(((made.vectors * wanted).sum(axis=1) / norms).min()))
            ratios.append(theirs / ours)
            rates.append((len(texts) / ours, len(texts) / theirs))
            print(
                f"  {rates[-1][0]:.0f} against {rates[-1][1]:.0f} texts a CPU second, {ratios[-1]:.2f} x",
                flush=True,
            )
    print(json.dumps({
        "figure": "embeddings", "backend": given.backend, "texts": len(texts), "pairs": given.pairs,
        "ratio": round(statistics.median(ratios), 2), "lowest_cosine": round(lowest, 7),
        "ours": round(statistics.median(r[0] for r in rates), 1),
        "theirs": round(statistics.median(r[1] for r in rates), 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
