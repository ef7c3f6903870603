"""memserve VERB ...: the same as python -m memserve.VERB ..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from memserve import cli
from memserve.errors import BackendMissing, InvalidInput, UnknownName

VERBS = {
    "plan": "what to run on the cards at hand, and why",
    "run": "ask for every request of a file, through the night",
    "serve": "start what a plan names",
    "compress": "make a smaller checkpoint, and judge what it lost",
    "bench": "measure what runs, beside what was planned",
    "speed": "what layouts send, and what compression gains",
    "models": "the models that fit, or all that are known",
    "cards": "the cards that are known",
    "doctor": "what was found on this machine, and what is missing",
}
LONG = frozenset({"run", "serve", "compress", "bench"})
"""Verbs that live long enough to need garbage collection."""
HELP = ("-h", "--help")
COMPLETION = "--print-completion"


def main(words: Sequence[str] | None = None) -> int:
    """Hand the words to their verb; the exit code is the verb's."""
    given = list(sys.argv[1:] if words is None else words)
    if given and given[0] in VERBS:
        return int(module(given[0]).main(given[1:]))
    return cli.answer(lambda: _general(given))


def module(verb: str) -> Any:
    """The module that answers a verb."""
    package = verb in {"plan", "run", "serve", "compress", "bench", "speed"}
    return import_module(f"memserve.{verb}.__main__" if package else f"memserve.{verb}")


def _general(words: Sequence[str]) -> int:
    """What is asked without a verb."""
    if not words or words[0] in HELP:
        print(usage())
        return cli.DONE if words else cli.MALFORMED
    if words[0] == "--version":
        from memserve import __version__

        print(f"memserve {__version__}")
        return cli.DONE
    if words[0].partition("=")[0] == COMPLETION:
        print(completion(words[0].partition("=")[2] or "".join(words[1:2])))
        return cli.DONE
    near = cli.nearest(words[0], VERBS)
    meant = f"did you mean {near[0]}?" if near else f"known: {', '.join(VERBS)}"
    raise UnknownName(f"unknown verb {words[0][:40]!r}: {meant}", suggestions=near)


def usage() -> str:
    """The verbs, each with a sentence."""
    wide = max(map(len, VERBS)) + 2
    rows = (f"  {verb:{wide}}{sentence}" for verb, sentence in VERBS.items())
    return "\n".join((
        "usage: memserve VERB ...   (memserve VERB --help lists a verb's options)", "", *rows, "",
        f"  --version             the release\n  {COMPLETION} S  completes verbs and options in the shell S",
        "\nexit codes: 0 done; 1 a well-formed call that cannot be met; 2 malformed",
    ))  # fmt: skip


def completion(shell: str) -> str:
    """The script that completes verbs and options in a shell."""
    try:
        import shtab
    except ImportError:
        raise BackendMissing("completion", needs="shtab", install="pip install shtab") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise InvalidInput(f"{COMPLETION} takes {', '.join(shtab.SUPPORTED_SHELLS)}, not {shell[:20]!r}")
    whole = cli.Parser("", None)
    verbs = whole.add_subparsers(parser_class=cli.Parser)
    for verb, sentence in VERBS.items():
        verbs._name_parser_map[verb] = module(verb).parser()
        verbs._choices_actions.append(verbs._ChoicesPseudoAction(verb, (), sentence))
    return str(shtab.complete(whole, shell=shell))


def script() -> None:
    """The console command."""
    if sys.argv[1:2] and sys.argv[1] in LONG:
        sys.exit(main())
    cli.short(main)


if __name__ == "__main__":
    script()
