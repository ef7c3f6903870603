"""memserve plan MODEL --gpus SPEC"""

from __future__ import annotations

from collections.abc import Sequence

from memserve import cli
from memserve.plan.tasks.options import parser as parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one call: 0 a plan fits, 1 none does, 2 malformed."""

    def task() -> int:
        from memserve.plan.tasks.options import run

        return run(words)

    return cli.answer(task)


if __name__ == "__main__":
    cli.short(main)
