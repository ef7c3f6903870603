"""memserve serve PLAN.json: start what was planned, wait until it answers, stop it with Ctrl-C.

memserve serve --backend B: any backend, in this process, on OpenAI's routes.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve import cli
from memserve.engines import environment
from memserve.engines.command import masked_text, shown
from memserve.errors import EngineFailed, InvalidInput, printable
from memserve.serve import advice, planned, server

if TYPE_CHECKING:
    import argparse

_REFRESH_SECONDS = 5.0
_OF_PLANS = ("python", "environment", "timeout", "allow", "make", "dry_run")
_OF_BACKENDS = ("model", "options", "task", "name", "no_key", "concurrency", "queue", "max_body", "grace")


def parser() -> cli.Parser:
    """Every option of the command."""
    parser = cli.Parser("serve", __doc__)
    add = parser.add_argument
    add("plan", metavar="PLAN", nargs="?", help="what memserve plan --json printed; - for standard input")
    add("--host", metavar="H", default=server.LOOPBACK, help="default: loopback only")
    add("--port", metavar="P", type=int, help="default: a free one")
    add("--python", metavar="FILE", help="run in the environment of this interpreter; nothing is installed")
    add("--environment", metavar="FOLDER", type=Path, help="make, or reuse, the environment in this folder")
    add("--key-file", metavar="FILE", type=Path, help="where the generated key is written (mode 600)")
    add(
        "--timeout", metavar="S", type=cli.number, default=server.START_SECONDS, help="seconds to wait for it"
    )
    add("--allow", metavar="WORD", nargs="+", default=[],
        help="what a plan may ask for beyond what the planner writes: a variable, a flag, ...")  # fmt: skip
    add("--make", action="store_true", help="make the checkpoint that the plan says is to be made")
    add("--dry-run", action="store_true", help="say what would be done")
    _of_backends(parser.add_argument_group("a backend in this process, instead of a plan"))
    return parser


def _of_backends(group: Any) -> None:
    add = group.add_argument
    add("--backend", metavar="B", help="hf, embedded, openai, ...; memserve doctor lists them")
    add("--model", metavar="M", help="a folder or a name; default: the backend's own")
    add("--options", metavar="K=V", nargs="+", default=[], help="the backend's own options")
    add("--task", choices=("generate", "embed", "rerank"), help="default: what the model is for")
    add("--name", metavar="ID", action="append", default=[], help="what callers call it; may be repeated")
    add("--config", metavar="FILE", type=Path, help="several models, and routes over them: a JSON file")
    add("--no-key", action="store_true", help="ask for none: loopback only")
    add("--concurrency", metavar="N", type=cli.count, default=256, help="requests in work (256)")
    add("--queue", metavar="N", type=cli.count, default=1024, help="requests that may wait (1024)")
    add("--max-body", metavar="MIB", type=cli.count, default=32, help="the largest body (32)")
    add("--grace", metavar="S", type=cli.amount, default=30.0, help="seconds for the last answers (30)")


class _Lines:
    """One line when something new is said, and at least one in a while."""

    def __init__(self) -> None:
        self._last, self._when = "", 0.0

    def __call__(self, progress: server.Progress) -> None:
        due = progress.seconds - self._when >= _REFRESH_SECONDS
        if due and (progress.line != self._last or progress.seconds - self._when >= 6 * _REFRESH_SECONDS):
            cli.tell(f"[{progress.seconds:5.0f} s] {progress.line}")
            self._last, self._when = progress.line, progress.seconds


def _key(started: server.Server, named: Path | None) -> str:
    """Where the key lies now; or that this engine asks for none."""
    if not started.program.asks_for_key:
        return f"none, {started.backend} asks for none: this machine's users can call it"
    path = named or started.log.with_name("key")
    server.private(path, started.reveal_key() + "\n")
    return str(path)


def _python(args: argparse.Namespace, plan: dict[str, Any]) -> str | None:
    if args.python or not plan.get("install"):
        return args.python  # type: ignore[no-any-return]
    return str(environment.make(plan["install"], folder=args.environment, report=_progress))


def _progress(line: str) -> None:
    cli.tell(line)


def _serve(args: argparse.Namespace) -> int:
    answer = planned.read(args.plan, args.allow, make=args.make, dry=args.dry_run)
    plan = answer["plan"]
    if args.dry_run:
        print(printable(masked_text(plan.get("install") or "")))
        print(shown(plan["command"], plan.get("env")))
        return 0
    if args.key_file:
        server.private(args.key_file, "")
    python = _python(args, plan)
    started = server.start(
        plan["command"], env=plan.get("env") or {}, host=args.host, port=args.port, python=python,
        backend=plan.get("backend"), inherit=args.allow, timeout=args.timeout, report=_Lines(),
        advise=lambda found: advice.instead(answer, found.memory),
    )  # fmt: skip
    with started:
        key = _key(started, args.key_file)
        print(f"ready: {started.base_url}  key: {key}  log: {started.log}", flush=True)
        while started.running:
            time.sleep(0.5)
        started.check()
    return 0


def _interrupt(*_: object) -> None:
    """A polite kill stops the server as Ctrl-C does, instead of leaving it behind."""
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Exit 0 after a clean stop, 1 if the engine failed, 2 for a malformed call."""
    signal.signal(signal.SIGTERM, _interrupt)
    return cli.answer(lambda: _answer(parser().read(argv)), failed=cli.FAILED)


def one_way(args: argparse.Namespace) -> bool:
    """Whether a backend is served in this process; two ways at once are refused."""
    ways = {"PLAN": args.plan, "--backend": args.backend, "--config": args.config}
    named = [name for name, given in ways.items() if given is not None]
    if len(named) != 1:
        raise InvalidInput(f"one of {', '.join(ways)} is needed, not {' and '.join(named) or 'none'}")
    plain = parser().parse_args(["-"])
    foreign = _OF_PLANS if args.plan is None else _OF_BACKENDS
    for name in foreign:
        if getattr(args, name) != getattr(plain, name):
            raise InvalidInput(f"--{name.replace('_', '-')} is not for {named[0]}")
    return args.plan is None


def _answer(args: argparse.Namespace) -> int:
    try:
        if one_way(args):
            from memserve.serve.endpoint import command

            return command.serve(args)
        return _serve(args)
    except KeyboardInterrupt:
        cli.tell("stopped")
        return cli.DONE
    except EngineFailed as error:  # the engine's own words and what to change: more than a line
        cli.tell(f"memserve serve: {error}")
        return cli.FAILED


if __name__ == "__main__":
    sys.exit(main())
