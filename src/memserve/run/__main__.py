"""Ask for every request of a file:  memserve run requests.jsonl -o answers.jsonl --model M"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve import cli, registry
from memserve.errors import InvalidInput, MemserveError
from memserve.options import finite
from memserve.run.options import PATIENCE_SECONDS
from memserve.run.summary import Summary
from memserve.run.tasks import TASKS

if TYPE_CHECKING:
    import argparse

    from memserve.run.job import Job

SETTINGS = ("max_tokens", "temperature", "top_p", "seed", "stop", "n")
RUN = ("concurrency", "rpm", "tpm", "budget", "price", "cache", "order", "patience", "retry_failed", "resume",
       "workers", "task", "batch", "cache_marks", "page", "watch", "telemetry")  # fmt: skip


def parser() -> cli.Parser:
    """Every option of the command."""
    words = cli.Parser("run", __doc__)
    add = words.add_argument
    add("requests", metavar="REQUESTS", nargs="?",
        help="a .jsonl file of requests, or - for standard input; job.toml: several stages")  # fmt: skip
    add(
        "-o", "--output", metavar="FILE",
        help="the .jsonl file of answers, a job's folder; what is there is gone on with",
    )  # fmt: skip
    _add_generator(words.add_argument_group("who answers"))
    _add_settings(words.add_argument_group("settings that requests leave open"))
    _add_limits(words.add_argument_group("limits"))
    _add_run(words.add_argument_group("the run"))
    _add_ray(words.add_argument_group("many machines"))
    return words


def _add_generator(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--task",
        choices=TASKS,
        default="generate",
        help="vectors, scores or log-likelihoods in the place of text",
    )
    add("--model", metavar="M", help="a model's name or folder; without it, the embedded default")
    add("--backend", metavar="B", help=", ".join(registry.names()))
    add(
        "--base-url",
        metavar="URL",
        action="append",
        help="the server of an HTTP backend; several share the work",
    )
    add(
        "--fallback",
        metavar="BACKEND:MODEL",
        action="append",
        default=[],
        help="answers where the first is out or refuses: B:M, or B:M@URL",
    )
    add("--timeout", metavar="S", type=cli.number, help="seconds for one attempt")
    add("--max-retries", metavar="N", type=int, help="attempts after the first")
    add("--options", nargs="*", default=[], metavar="K=V", help="any other option of the backend")


def _add_settings(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--max-tokens", metavar="N", type=int)
    add("--temperature", metavar="T", type=cli.number)
    add("--top-p", metavar="P", type=cli.number)
    add("--seed", metavar="N", type=int)
    add("--stop", metavar="TEXT", action="append")
    add("--n", metavar="N", type=int)
    add("--role", metavar="R", help="of a text to embed: query or document")
    add("--dimensions", metavar="N", type=int, help="of a vector")


def _add_limits(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--concurrency", metavar="N", type=int, help="the most in flight; found out by trying if not given")
    add("--rpm", metavar="N", type=cli.number, help="requests a minute")
    add("--tpm", metavar="N", type=cli.number, help="tokens a minute")
    add("--budget", metavar="B", help="stop before more is spent on this output: 20usd, 5mtok")
    add("--price", metavar="IN:OUT", help="dollars per million tokens")
    add(
        "--patience",
        metavar="S",
        type=cli.number,
        default=PATIENCE_SECONDS,
        help="seconds to wait for a dead server",
    )


def _add_run(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--cache", metavar="FILE", help="a file of answers shared by runs")
    add("--order", choices=("prefix", "given"), default="prefix")
    add("--retry-failed", action="store_true", help="ask again for what failed for good, too")
    add("--no-resume", dest="resume", action="store_false", help="set the old answers aside")
    add("--batch", action="store_true", help="through the provider's batch service, and wait for the answers")
    add("--no-cache-marks", dest="cache_marks", action="store_false", help="leave prompts as they are")
    add("--batch-lines", metavar="FILE", type=cli.target,
        help="write the answers in the common batch format, too, at the end")  # fmt: skip
    add(
        "--verify",
        metavar="FILE",
        help="ask nothing: whether each line of these answers is as it was written",
    )
    add("--repair", metavar="FILE", help="set lines that are not aside, so that they are asked again")
    add("--page", metavar="FILE", type=cli.target, help="the run as an HTML page, written while it goes on")
    add("--watch", metavar="PORT", type=int, help="show it, and /metrics, on this port of this machine")
    add("--telemetry", action="store_true", help="send OpenTelemetry's spans and metrics (OTEL_ variables)")
    add("--quiet", action="store_true", help="no progress, only the summary")
    add("--dry-run", action="store_true", help="of a job: what its stages ask and cost, and no more")


def _add_ray(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="spread over a Ray cluster")
    add("--workers", metavar="N", type=int, help="generators, one to an actor; as many as nodes if not given")
    add("--worker-gpus", type=cli.number, metavar="N", help="cards that each worker holds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code is 0 all answered, 1 something failed, 2 a malformed call, 130 interrupted."""
    _log_to_stderr()
    return cli.answer(lambda: _run(parser().read(arguments)), failed=cli.FAILED)


def _run(chosen: argparse.Namespace) -> int:
    from memserve.run.job import Job, check
    from memserve.run.options import Options
    from memserve.run.store.files import local
    from memserve.run.summary import write as write_lines

    if chosen.verify or chosen.repair:
        _alone(
            chosen, parser().parse_args([]), ("verify", "repair", "quiet"), "is not for --verify and --repair"
        )
        if chosen.verify and chosen.repair:
            raise InvalidInput("--verify asks and --repair mends: name one")
        path = local(chosen.verify or chosen.repair, "the file of answers")
        return _verify(path, mend=bool(chosen.repair))
    if chosen.requests is None or chosen.output is None:
        raise InvalidInput(
            "a run needs REQUESTS and -o FILE", hint="memserve run requests.jsonl -o answers.jsonl"
        )
    if str(chosen.requests).endswith((".toml", ".json")):
        return _staged(chosen)
    if chosen.dry_run:
        raise InvalidInput("--dry-run is for a job of several stages: memserve run job.toml")
    options = Options.of(
        **{name: getattr(chosen, name) for name in RUN},
        settings=_settings(chosen),
        progress=not chosen.quiet,
        **_spread(chosen),
    )
    check(chosen.requests, chosen.output, options, chosen.batch_lines and Path(chosen.batch_lines))
    opener = _opener(chosen)
    with nullcontext(opener) if options.distributed else opener() as generator:
        job = Job(chosen.requests, chosen.output, generator, options)
        summary = job.execute()
    if chosen.batch_lines:
        write_lines(job.output, Path(chosen.batch_lines))
    cli.say(str(summary))
    return _code(job, summary)


def _staged(chosen: argparse.Namespace) -> int:
    """A job of several stages: what it costs is told first; 1 where something failed."""
    from memserve.run import quote, stages

    def opener(stage: stages.Stage) -> Any:
        from memserve.client import generator

        where: dict[str, Any] = {"base_url": stage.base_url} if stage.base_url else {}
        return generator(stage.model, backend=stage.backend, **where, **stage.options)

    made = stages.read(Path(chosen.requests))
    plain = parser().parse_args([chosen.requests, "-o", chosen.output])
    _alone(chosen, plain, ("quiet", "dry_run"), "belongs into the job, to the stage that it is for")
    job = stages.Pipeline(made, Path(chosen.output), opener, cli.say, progress=not chosen.quiet)
    for line in list(quote.told(job)):  # all of it, or the one line of what is wrong
        cli.say(line)
    if chosen.dry_run:
        return cli.DONE
    count = job.execute()
    if job.stopped:
        return _code(*job.stopped)
    data = f"{cli.counted(count, 'line')} in {job.folder / 'data.jsonl'}"
    cli.say(f"{data}, {len(job.gold)} in {job.folder / 'gold.jsonl'}")
    return cli.FAILED if job.failed or not count else cli.DONE


def _alone(chosen: argparse.Namespace, plain: argparse.Namespace, may: tuple[str, ...], why: str) -> None:
    """Refuse what is chosen beside the few options that may be."""
    extra = next((name for name, value in vars(chosen).items()
                  if value != getattr(plain, name) and name not in may), None)  # fmt: skip
    if extra:
        name = "REQUESTS" if extra == "requests" else f"--{extra.replace('_', '-')}"
        raise InvalidInput(f"{name} {why}")


def _verify(path: Path, *, mend: bool) -> int:
    from memserve.run.store.journal import repair, verify

    whole, damaged = verify(path)
    numbers, one = ", ".join(map(str, damaged[:20])), len(damaged) == 1
    are = "1 is not: line" if one else f"{len(damaged)} are not: lines"
    where = f"; {are} {numbers}" if damaged else ""
    as_written = "is as it was" if whole == 1 else "are as they were"
    cli.say(f"{cli.counted(whole, 'answer')} of {path} {as_written} written{where}")
    if mend and damaged:
        cli.say(f"set aside in {repair(path)}; run again: what is missing is asked again")
    return cli.FAILED if damaged and not mend else cli.DONE


def _settings(chosen: argparse.Namespace) -> dict[str, Any]:
    names, own = {name: getattr(chosen, name) for name in SETTINGS}, vars(chosen)
    extra = {name: own[name] for name in ("role", "dimensions") if own[name] is not None}
    if extra and chosen.task != "embed":
        raise InvalidInput("--role and --dimensions belong to --task embed")
    return {**names, "extra": extra} if extra else names


def _spread(chosen: argparse.Namespace) -> dict[str, Any]:
    """What Ray needs to know, where the run is spread."""
    gpus = {} if chosen.worker_gpus is None else {"num_gpus": chosen.worker_gpus}
    way = None if chosen.ray is None else "ray"
    return {"distributed": way, "address": chosen.ray or None, "worker_resources": gpus}


def _code(job: Job, summary: Summary) -> int:
    if job.interrupts and job.interrupts.caught:
        return cli.INTERRUPTED
    if job.error:
        if not isinstance(job.error, MemserveError):
            raise job.error
        cli.say(f"stopped: {job.error}")
        return cli.FAILED
    return cli.FAILED if summary.failed or summary.pending else cli.DONE


def _opener(chosen: argparse.Namespace) -> Callable[[], Any]:
    """What opens the generator that was named, here or on another machine."""
    from memserve.client import embedder, generator, reranker
    from memserve.run.routing import named, open_all

    task: Callable[..., Any] = {"embed": embedder, "rerank": reranker}.get(chosen.task, generator)
    if task is not generator and (chosen.fallback or len(chosen.base_url or ()) > 1):
        raise InvalidInput("several servers and --fallback are for text: name one --base-url")
    first = partial(task, chosen.model, backend=chosen.backend, **_backend_options(chosen))
    urls = chosen.base_url or []
    several = [partial(first, base_url=url) for url in urls] or [first]
    rest = [partial(generator, **named(words)) for words in chosen.fallback]
    return partial(open_all, several, rest) if rest or len(several) > 1 else several[0]


def _backend_options(chosen: argparse.Namespace) -> dict[str, Any]:
    options = {name: getattr(chosen, name) for name in ("timeout", "max_retries")}
    for pair in chosen.options:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInput(f"--options takes K=V, not {pair[:60]!r}")
        options[name.replace("-", "_")] = finite(f"--options {name}", _value(value))
    if (chosen.base_url or "base_url" in options) and 0 < chosen.patience < PATIENCE_SECONDS:
        options.setdefault("startup_timeout", chosen.patience)
    if chosen.batch and chosen.backend and registry.find(chosen.backend).capabilities.batches:
        options["batch"] = True  # a local engine that answers files is opened for them
    return {name: value for name, value in options.items() if value is not None}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(format="%(message)s", level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
