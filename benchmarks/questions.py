"""Issue 9's properties over generated questions: no answer worse than with one option fixed, no false word.

    python benchmarks/questions.py [--questions 2000] [--seed 9] [--wishes]

The questions and what is asked of their answers are those of tests/plan/test_questions.py.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.support.questions import false_reasons, false_remedies, fixings, questions, wished, worse


def main() -> int:
    """Counts violations; 1 where there is one."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--questions", type=int, default=2000)
    made.add_argument("--seed", type=int, default=9)
    made.add_argument(
        "--wishes", action="store_true", help="each with one wish more: times, room, a job, ..."
    )
    asked = made.parse_args()
    chance = random.Random(asked.seed)
    bad, said, wrong, tried, unfit = 0, 0, 0, 0, 0
    for question in (wished if asked.wishes else questions)(asked.questions, asked.seed):
        for fixed in worse(question, chance):
            print("worse than with", fixed, question)
            bad += 1
        told, reasons = false_reasons(question)
        count, remedies = false_remedies(question, chance.choice(({}, {}, *fixings(question, chance))))
        for word in (*reasons, *remedies):
            print("false:", word, question)
        said, wrong, tried, unfit = said + told, wrong + len(reasons), tried + count, unfit + len(remedies)
    print(f"{asked.questions} questions: {bad} worse than with one option fixed; {wrong} of {said} reasons "
          f"false; {unfit} of {tried} remedies do not fit when asked")  # fmt: skip
    return int(bool(bad or wrong or unfit))


if __name__ == "__main__":
    raise SystemExit(main())
