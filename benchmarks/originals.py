"""The examples' measures beside the benchmarks' own functions, out of checkouts of yours: equal to 1e-9?

    python benchmarks/originals.py --longmemeval FOLDER [--data FILE] --locomo FOLDER [--locomo-data FILE]

Needs nltk, regex and rank-bm25. Without data the instances are made by chance, 500 in LongMemEval's format;
LoCoMo's data is `data/locomo10.json` or `data/locomo10.zip` of its checkout. The checkouts' own code is run.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from examples.common.retrieval import Bm25, blanks  # noqa: E402
from examples.locomo import data as locomo  # noqa: E402
from examples.locomo.score import points, recall  # noqa: E402
from examples.longmemeval import data as longmemeval  # noqa: E402
from examples.longmemeval import measures  # noqa: E402
from examples.longmemeval.index import documents  # noqa: E402

QUESTIONS = 500


def module(file: Path) -> ModuleType:
    """A file of a checkout, without the package around it."""
    spec = importlib.util.spec_from_file_location(f"original_{file.stem}", file)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def of_longmemeval(folder: Path, file: Path | None) -> None:
    if not hasattr(np, "asfarray"):  # numpy 2 took it away
        np.asfarray = lambda values: np.asarray(values, float)
    own = module(folder / "src/retrieval/eval_utils.py")
    made = () if file else longmemeval.synthetic(QUESTIONS, 40)
    rows = longmemeval.load(file) if file else [longmemeval._read(row) for row in made]
    chance, same = random.Random(0), 0
    apart: list[float] = []
    for one in rows:
        for granularity in ("session", "turn"):
            held = documents(one, granularity)
            names, texts = [document.id for document in held], [document.text for document in held]
            order = Bm25(blanks).rank(one.question, texts)
            same += order == _ranked(one.question, texts)
            for ranking in (order, chance.sample(order, len(order))):
                apart += _differences(own, ranking, names, granularity)
    print(f"LongMemEval, {len(rows)} questions: {len(apart):,} measures, largest difference {max(apart):.1e}")
    print(f"  BM25's order against rank_bm25: {same} of {2 * len(rows)} the same")


def _differences(own: ModuleType, ranking: list[int], names: list[str], granularity: str) -> Iterator[float]:
    wanted = list({name for name in names if "answer" in name})
    pairs = [(measures.measured, own.evaluate_retrieval)]
    if granularity == "turn":
        pairs.append((measures.by_session, own.evaluate_retrieval_turn2session))
    for k in measures.AT:
        for ours, theirs in pairs:
            both = ours(ranking, names, k), theirs(ranking, wanted, names, k=k)
            yield from (abs(a - b) for a, b in zip(*both, strict=True))


def _ranked(query: str, texts: list[str]) -> list[int]:
    from rank_bm25 import BM25Okapi

    scores = BM25Okapi([text.split(" ") for text in texts]).get_scores(query.split(" "))
    return [int(place) for place in np.argsort(scores)[::-1]]


def of_locomo(folder: Path, file: Path | None) -> None:
    known = [folder / "data" / name for name in ("locomo10.json", "locomo10.zip")]
    file = file or next(one for one in known if one.exists())
    sys.modules.setdefault("bert_score", ModuleType("bert_score")).score = None  # imported, not used for F1
    own = module(folder / "task_eval/evaluation.py")
    worst, compared, total = 0.0, 0, [0.0, 0.0]
    for talk in locomo.load(file):
        said = {turn.id: turn.text for turn in talk.turns}
        for one in talk.questions:
            if one.category == 5 or not one.evidence or one.evidence[0] not in said:
                continue
            told = said[one.evidence[0]]
            theirs = float((own.f1 if one.category == 1 else own.f1_score)(told, one.answer))
            ours = points(one, told)
            worst, compared = max(worst, abs(ours - theirs)), compared + 1
            total[0] += ours
            total[1] += theirs
            assert recall(one, list(one.evidence)) == 1.0
    means = ", ".join(f"{value / max(1, compared):.6f}" for value in total)
    print(
        f"LoCoMo, {compared:,} questions, answered by their first evidence: F1 differs by {worst:.1e} at most"
    )
    print(f"  mean F1, ours and theirs: {means}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--longmemeval", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--locomo", type=Path)
    parser.add_argument("--locomo-data", type=Path)
    chosen = parser.parse_args()
    if chosen.longmemeval:
        of_longmemeval(chosen.longmemeval, chosen.data)
    if chosen.locomo:
        of_locomo(chosen.locomo, chosen.locomo_data)


if __name__ == "__main__":
    main()
