"""The command line's words."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NoReturn

from memserve.errors import InvalidInput
from memserve.plan.query import MOST, Query

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.plan.job import Job

_COUNT = re.compile(r"(\d{1,12})([kKmM]?)")
_UNITS = {"": 1, "k": 1024, "m": 1024**2}


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that every error is one line."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message, hint="python -m memserve.plan --help lists the options")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one call."""
    options = parser().parse_args(words)
    if options.model is None and options.train:
        options.model = _last(options.train)
    if not (options.model or options.check or options.calibrate or options.compare):
        raise InvalidInput("no model named: python -m memserve.plan llama-70b --gpus 4xV100")
    return options


def _last(words: list[str]) -> str | None:
    """MODEL behind `--train qlora batch=4`, which takes it for a word of its own."""
    from memserve.plan.tasks.training import METHODS, WORDS

    named = "=" in words[-1] or words[-1].replace("-", "_") in (*METHODS, *WORDS)
    return None if named else words.pop()


def query(options: argparse.Namespace) -> Query:
    """What the options ask of the planner."""
    return Query(
        context=options.context, concurrency=options.concurrency, backend=options.backend,
        engine_version=options.engine_version, quantization=options.quantization, tensor_parallel=options.tp,
        pipeline_parallel=options.pp, data_parallel=options.dp, kv_dtype=options.kv_dtype,
        objective=options.objective, job=job_of(options),
    )  # fmt: skip


def job_of(options: argparse.Namespace) -> Job | None:
    """The workload that the options name, with its bounds."""
    if options.workload is None and options.deadline is None and options.budget is None:
        return None
    from memserve.plan import job

    return job.read(options.workload, options.deadline, options.budget)


def parser() -> Parser:
    """Every option that the planner knows."""
    made = Parser(
        prog="python -m memserve.plan",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
        description="What to run on the cards at hand: engine, release, quantization, layout, command.",
        epilog="exit codes: 0 a plan fits; 1 nothing does, the closest miss is shown; 2 malformed call",
    )
    made.add_argument("model", nargs="?", metavar="MODEL", help="a name, hub id, folder or config.json")
    made.add_argument(
        "--gpus", metavar="SPEC", help="4xV100, 2x8xH100, 8x910B4@12.5 ($/h), p4d.24xlarge, cpu, any"
    )
    _wanted(made)
    _shown(made)
    _other(made)
    return made


def _wanted(made: Parser) -> None:
    add = made.add_argument_group("what is wanted").add_argument
    add("--context", type=count, metavar="N", help="tokens of one request, prompt and answer")
    add("--concurrency", type=count, default=1, metavar="N", help="requests of that context at once")
    add("--backend", metavar="B", help="vllm, ascend, sglang, hf, lmdeploy, llamacpp, mindie, openai, ...")
    add("--engine-version", metavar="V", help="the engine's release")
    add("--quantization", metavar="Q", help="none, gptq, awq, nf4, int8, fp8, w8a8, gguf-q4_k_m, ...")
    add("--tp", type=count, metavar="N", help="cards that share every layer")
    add("--pp", type=count, metavar="N", help="groups of layers")
    add("--dp", type=count, metavar="N", help="copies of the model")
    add("--kv-dtype", metavar="D", help="auto, fp8, ...")
    add("--workload", metavar="W", help="longmemeval-s, locomo, IN:OUT:N or a .jsonl file of requests")
    add("--deadline", metavar="T", help="with --workload: 12h, 90m, 3d, 'tomorrow 9:00'")
    add("--budget", type=amount, metavar="USD", help="with --workload: dollars")
    add("--objective", default="quality", metavar="O", help="quality, throughput, latency or cost")


def _shown(made: Parser) -> None:
    add = made.add_argument_group("what is shown").add_argument
    add("--all", action="store_true", help="every candidate that fits")
    add("--why", action="store_true", help="every rejection with its rule and source")
    add("--json", action="store_true", help="one JSON object")
    add("--emit", metavar="FORMAT", help="the file that starts the plan: compose, slurm or kuberay")
    add("--bind", default="127.0.0.1", metavar="ADDRESS", help="with --emit: where the server listens")
    add("--plot", metavar="FILE", help="draw memory and KV capacity into a .png or .svg")


def _other(made: Parser) -> None:
    add = made.add_argument_group("other questions").add_argument
    add("--check", metavar="COMMAND", help="judge a vllm or sglang command line")
    add("--memory", type=amount, metavar="GIB", help="with --check: what the engine sees of a card")
    add("--embedder", metavar="MODEL", help="plan an embedder beside the generator")
    add("--train", nargs="*", metavar="WORD", help="full, lora or qlora, and batch=4 sequence=2048 ...")
    add("--compare", nargs="+", metavar="SPEC", help="with --workload: 4xV100 1xH100 openai:gpt-4o-mini")
    add("--calibrate", metavar="LOG", help="learn this machine's constants from a start-up log")


def count(text: str) -> int:
    """A whole number above 0; 32k is 32768."""
    found = _COUNT.fullmatch(text.strip())
    number = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if not 0 < number <= MOST:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, not {text[:40]!r}")
    return number


def amount(text: str) -> float:
    """A number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < MOST:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text[:40]!r}")
    return number
