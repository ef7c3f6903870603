"""memserve models [--gpus SPEC]: the models that fit a machine, the best first, or all that are known."""

from collections.abc import Sequence

from memserve import cli


def parser() -> cli.Parser:
    """Every option of the command."""
    from memserve.plan.tasks.options import wanted

    made = cli.Parser("models", __doc__)
    made.add_argument("--gpus", metavar="SPEC", help="4xV100, 2x8xH100, ...; without it, the catalogue")
    made.add_argument("--task", metavar="T", help="generate or embed; without it, both")
    made.add_argument("--json", action="store_true", help="one JSON object")
    wanted(made)
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0 a model fits, 1 none does, 2 malformed."""
    return cli.answer(lambda: _run(words))


def _run(words: Sequence[str] | None) -> int:
    from memserve.plan import models
    from memserve.plan.page import show
    from memserve.plan.tasks.options import asked

    options = parser().read(words)
    return show(models(options.gpus, task=options.task, **asked(options)), options)


if __name__ == "__main__":
    cli.short(main)
