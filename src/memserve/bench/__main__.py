"""Measure what runs, beside what was planned:  memserve bench --base-url URL --model M"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memserve import cli
from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from memserve.bench.measuring import Level
    from memserve.bench.target import Target

T = TypeVar("T")
WORKLOAD = "512:128:32"


def parser() -> cli.Parser:
    """Every option of the command."""
    words = cli.Parser("bench", __doc__, epilog="exit codes: 0 measured; 1 nothing answered; 2 malformed")
    add = words.add_argument_group("what is measured").add_argument
    words.add_argument("plan", nargs="?", metavar="PLAN.json", help="as memserve plan --json printed it")
    add("--base-url", metavar="URL", help="a server that runs, of PLAN.json or of --model; its key comes from"
        " the usual variable")  # fmt: skip
    add("--model", metavar="M", help="a name, a folder; default: the backend's own")
    add("--backend", metavar="B", help="opened here; with --base-url: which engine answers there")
    add("--options", nargs="*", default=[], metavar="K=V", help="any other option of the backend")
    add("--python", metavar="FILE", help="with PLAN.json: the interpreter of the engine's environment")
    add("--allow", metavar="WORD", nargs="+", default=[], help="with PLAN.json: as memserve serve takes it")
    add("--tokenizer", metavar="FOLDER", help="counts tokens where a server does not")
    _load(words)
    add = words.add_argument_group("what is predicted").add_argument
    add("--gpus", metavar="SPEC", help="the machine that answers; this one where it is not said")
    add("--engine-version", metavar="V")
    add("--quantization", metavar="Q")
    add("--tp", type=cli.count, metavar="N", help="cards that share every layer")
    add = words.add_argument_group("what is shown").add_argument
    add("-o", "--output", metavar="FILE", type=cli.target,
        help="the report, for memserve plan --calibrate FILE")  # fmt: skip
    add("--json", action="store_true", help="one JSON object")
    add("--quiet", action="store_true", help="no progress")
    return words


def _load(words: cli.Parser) -> None:
    add = words.add_argument_group("the load").add_argument
    add("--workload", metavar="W", default=WORKLOAD, help=f"IN:OUT:N, a name or a .jsonl file ({WORKLOAD})")
    add("--concurrency", metavar="N,...", type=_counts, help="requests in flight, each in turn (1)")
    add("--rate", metavar="R,...", type=_rates, help="or begun a second, each in turn; inf: all at once")
    add("--even", action="store_true", help="with --rate: evenly instead of at random moments (Poisson)")
    add("--warm-up", metavar="N", type=cli.count, default=4, help="requests before anything is measured (4)")
    add("--seed", metavar="N", type=int, help="the same prompts again: a prefix cache may know them")
    add("--ttft", metavar="MS", type=cli.amount, help="a target: goodput counts what meets it")
    add("--tpot", metavar="MS", type=cli.amount, help="a target: goodput counts what meets it")


def _counts(text: str) -> list[int]:
    return _each(text, cli.count)


def _rates(text: str) -> list[float]:
    return _each(text, lambda word: inf if word == "inf" else cli.amount(word))


def _each(text: str, read: Callable[[str], T]) -> list[T]:
    if not text.strip():
        raise ArgumentTypeError("a number is needed")
    return [read(word.strip()) for word in text.split(",")]


def main(words: Sequence[str] | None = None) -> int:
    """Measure: 0 measured, 1 nothing answered, 2 a malformed call."""
    return cli.answer(lambda: _bench(parser().read(words)), failed=cli.FAILED)


def _bench(given: Namespace) -> int:
    from memserve.bench.measuring import measure
    from memserve.speed import workloads

    levels, workload = _levels(given), workloads.find(given.workload)
    most = max(level.concurrency or workload.requests for level in levels)
    with _target(given, most) as target:
        found = measure(
            target, workload, levels, warm_up=given.warm_up, seed=given.seed, even=given.even,
            ttft=given.ttft, tpot=given.tpot, tokenizer=given.tokenizer, tell=_told(given),
            file=given.workload if given.workload.endswith(".jsonl") else None,
        )  # fmt: skip
    if given.output:
        Path(given.output).write_text(json.dumps(found.to_dict(), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found.to_dict()) if given.json else found)
    return cli.DONE if found.fits else cli.FAILED


def _levels(given: Namespace) -> list[Level]:
    from memserve.bench.measuring import Level

    if given.rate and given.concurrency:
        raise InvalidInput("--concurrency and --rate are two ways to send: say one")
    if given.rate:
        return [Level(rate=rate) for rate in given.rate]
    return [Level(count) for count in given.concurrency or (1,)]


def _target(given: Namespace, most: int) -> AbstractContextManager[Target]:
    from memserve import options
    from memserve.bench import target

    own = given.backend is not None and given.base_url is None  # a backend has a model of its own
    named = given.model is not None
    if (given.plan is not None and named) or not (given.plan is not None or named or own):
        raise InvalidInput("say one: PLAN.json, --base-url URL --model M, --backend B [--model M]")
    _heeded(given)
    if given.plan is not None:
        return target.started(given.plan, base_url=given.base_url, python=given.python,
                              allow=tuple(given.allow), most=most, report=_told(given))  # fmt: skip
    rest = {name: options.value(value) for name, _, value in (word.partition("=") for word in given.options)}
    return target.opened(
        given.model, backend=given.backend, base_url=given.base_url, most=most, options=rest, gpus=given.gpus,
        engine_version=given.engine_version, quantization=given.quantization, tensor_parallel=given.tp,
    )  # fmt: skip


def _heeded(given: Namespace) -> None:
    """An option that would change nothing is refused."""
    plan = ["backend", "options", "gpus", "engine_version", "quantization", "tp"] if given.plan else ["allow"]
    python = [] if given.plan and not given.base_url else ["python"]
    for name in (*plan, *python, *([] if given.rate else ["even"])):
        if getattr(given, name):
            raise InvalidInput(f"nothing heeds --{name.replace('_', '-')} here: leave it out")


def _told(given: Namespace) -> Callable[[str], None]:
    return (lambda line: None) if given.quiet else lambda line: cli.tell(line)


if __name__ == "__main__":
    sys.exit(main())
