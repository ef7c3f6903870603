"""Ask for every request of a file:  python -m memserve.run requests.jsonl -o answers.jsonl --model M"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from memserve.cli import Parser, say
from memserve.errors import InvalidInput, MemserveError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from memserve.run.job import Job
    from memserve.run.summary import Summary

ANSWERED, FAILED, MALFORMED, INTERRUPTED = 0, 1, 2, 130
SETTINGS = ("max_tokens", "temperature", "top_p", "seed", "stop", "n")
RUN = ("concurrency", "rpm", "tpm", "budget", "price", "cache", "order", "patience", "retry_failed", "resume",
       "workers")  # fmt: skip


def parser() -> Parser:
    """Every option of the command."""
    words = Parser(prog="python -m memserve.run", description=__doc__, allow_abbrev=False)
    words.add_argument("requests", help="a .jsonl file of requests, or - for standard input")
    words.add_argument(
        "-o", "--output", required=True, help="the .jsonl file of answers; an existing one is resumed"
    )
    _add_generator(words.add_argument_group("who answers"))
    _add_settings(words.add_argument_group("settings that requests leave open"))
    _add_limits(words.add_argument_group("limits"))
    _add_run(words.add_argument_group("the run"))
    _add_ray(words.add_argument_group("many machines"))
    return words


def _add_generator(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", help="a model's name or folder; without it, the embedded default")
    group.add_argument("--backend", help="openai, pangu, vllm, hf, ...")
    group.add_argument("--base-url", help="the server of an HTTP backend")
    group.add_argument("--timeout", type=float, help="seconds for one attempt")
    group.add_argument("--max-retries", type=int, help="attempts after the first")
    group.add_argument(
        "--options", nargs="*", default=[], metavar="K=V", help="any other option of the backend"
    )


def _add_settings(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--max-tokens", type=int)
    group.add_argument("--temperature", type=float)
    group.add_argument("--top-p", type=float)
    group.add_argument("--seed", type=int)
    group.add_argument("--stop", action="append")
    group.add_argument("--n", type=int)


def _add_limits(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--concurrency", type=int, help="the most in flight; found out by trying if not given")
    group.add_argument("--rpm", type=float, help="requests a minute")
    group.add_argument("--tpm", type=float, help="tokens a minute")
    group.add_argument("--budget", help="stop before more is spent on this output: 20usd, 5mtok")
    group.add_argument("--price", type=_price, metavar="IN:OUT", help="dollars per million tokens")
    group.add_argument("--patience", type=float, default=600.0, help="seconds to wait for a dead server")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--cache", help="a file of answers shared by runs")
    group.add_argument("--order", choices=("prefix", "given"), default="prefix")
    group.add_argument("--retry-failed", action="store_true", help="ask again for what failed for good, too")
    group.add_argument("--no-resume", dest="resume", action="store_false", help="set the old answers aside")
    group.add_argument("--quiet", action="store_true", help="no progress, only the summary")


def _add_ray(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="spread over a Ray cluster")
    group.add_argument(
        "--workers", type=int, help="generators, one to an actor; as many as nodes if not given"
    )
    group.add_argument("--worker-gpus", type=float, metavar="N", help="cards that each worker holds")


def _price(text: str) -> tuple[float, float]:
    before, _, after = text.partition(":")
    try:
        return float(before), float(after)
    except ValueError:
        raise ArgumentTypeError(f"two prices as 0.15:0.60 are needed, not {text[:40]!r}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 0 all answered, 1 something failed, 2 a malformed call, 130 interrupted."""
    _log_to_stderr()
    try:
        chosen = parser().parse_args(arguments)
        return _run(chosen)
    except MemserveError as broken:
        say(f"error: {broken}")
        return MALFORMED if isinstance(broken, InvalidInput) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(chosen: argparse.Namespace) -> int:
    import memserve
    from memserve.run.job import Job
    from memserve.run.options import Options

    options = Options.of(
        **{name: getattr(chosen, name) for name in RUN},
        settings={name: getattr(chosen, name) for name in SETTINGS},
        progress=not chosen.quiet,
        **_spread(chosen),
    )
    opener = partial(memserve.generator, chosen.model, backend=chosen.backend, **_backend_options(chosen))
    with nullcontext(opener) if options.distributed else opener() as generator:
        job = Job(chosen.requests, chosen.output, generator, options)
        summary = job.execute()
    say(str(summary))
    return _code(job, summary)


def _spread(chosen: argparse.Namespace) -> dict[str, Any]:
    """What Ray is told, where the run is spread."""
    gpus = {} if chosen.worker_gpus is None else {"num_gpus": chosen.worker_gpus}
    way = None if chosen.ray is None else "ray"
    return {"distributed": way, "address": chosen.ray or None, "worker_resources": gpus}


def _code(job: Job, summary: Summary) -> int:
    if job.interrupts and job.interrupts.caught:
        return INTERRUPTED
    if job.error:
        if not isinstance(job.error, MemserveError):
            raise job.error
        say(f"stopped: {job.error}")
        return FAILED
    return FAILED if summary.failed or summary.pending else ANSWERED


def _backend_options(chosen: argparse.Namespace) -> dict[str, Any]:
    options = {name: getattr(chosen, name) for name in ("base_url", "timeout", "max_retries")}
    for pair in chosen.options:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInput(f"--options takes K=V, not {pair[:60]!r}")
        options[name.replace("-", "_")] = _value(value)
    return {name: value for name, value in options.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(format="%(message)s", level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
