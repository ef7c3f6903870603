"""memserve models [--gpus SPEC]: the models that fit a machine, the best first, or all that are known."""

import sys
from collections.abc import Sequence

from memserve import cli


def parser() -> cli.Parser:
    """Every option of the command."""
    from memserve.plan.tasks.options import wanted

    made = cli.Parser("models", __doc__)
    made.add_argument("--gpus", metavar="SPEC", help="4xV100, 2x8xH100, ...; without it, the catalogue")
    made.add_argument("--task", metavar="T", help="generate, embed or rerank; without it, all")
    made.add_argument("--json", action="store_true", help="one JSON object")
    made.add_argument(
        "--refresh",
        nargs="+",
        metavar="MODEL",
        help="ask the hub for these (all: each), say what is new, keep it",
    )
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
    if options.refresh:
        return _refreshed(tuple(options.refresh), options.json)
    return show(models(options.gpus, task=options.task, report=_report, **asked(options)), options)


def _report(done: int, of: int) -> None:
    """How far the search is, in one line that a terminal writes over; seconds pass before there is more."""
    if sys.stderr.isatty():
        line = "\r\033[K" if done + 1 == of else f"\r{done} of {of} models"
        print(line, end="", file=sys.stderr, flush=True)


def _refreshed(names: tuple[str, ...], as_json: bool) -> int:
    """A line for each change, as it is found; 1 where a model could not be read."""
    import json

    from memserve import files
    from memserve.model import catalogue
    from memserve.model.refresh import refresh

    changes = []
    for change in refresh(names):
        changes.append(change)
        if not as_json:
            said = " -> ".join(filter(None, (change.before, change.after)))
            print(f"{change.model}: {change.what} {said}", flush=True)
    kept = files.configured(catalogue.OWN)
    if as_json:
        print(json.dumps({"schema": 1, "changes": [one._asdict() for one in changes], "file": kept}))
    else:
        print(f"{len(changes)} changes; what the hub says of these models is kept in {kept}")
    return int(any(change.what in ("gone", "unknown", "unread") for change in changes))


if __name__ == "__main__":
    cli.short(main)
