"""python -m memserve.serve PLAN.json: start what was planned, wait until it answers, stop it with Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.cli import Parser, say
from memserve.errors import InvalidInput, MemserveError
from memserve.serve import advice, environment, planned, server

if TYPE_CHECKING:
    import argparse

_REFRESH_SECONDS = 5.0


def _parser() -> Parser:
    parser = Parser(prog="python -m memserve.serve", description=__doc__)
    parser.add_argument("plan", help="what memserve.plan --json printed; - for standard input")
    parser.add_argument("--host", default=server.LOOPBACK, help="default: loopback only")
    parser.add_argument("--port", type=int, help="default: a free one")
    parser.add_argument("--python", help="run in the environment of this interpreter; nothing is installed")
    parser.add_argument("--environment", type=Path, help="make, or reuse, the environment in this folder")
    parser.add_argument("--key-file", type=Path, help="where the generated key is written (mode 600)")
    parser.add_argument("--timeout", type=float, default=server.START_SECONDS, help="seconds to wait for it")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    return parser


class _Lines:
    """One line when something new is said, and at least one in a while."""

    def __init__(self) -> None:
        self._last, self._when = "", 0.0

    def __call__(self, progress: server.Progress) -> None:
        due = progress.seconds - self._when >= _REFRESH_SECONDS
        if due and (progress.line != self._last or progress.seconds - self._when >= 6 * _REFRESH_SECONDS):
            print(f"[{progress.seconds:5.0f} s] {progress.line}", file=sys.stderr, flush=True)
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
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    return str(environment.make(plan["install"], folder=args.environment, report=say))


def _serve(args: argparse.Namespace) -> int:
    answer = planned.read(args.plan)
    plan = answer["plan"]
    if args.dry_run:
        print(plan.get("install", ""), " ".join(plan["command"]), sep="\n")
        return 0
    python = _python(args, plan)
    started = server.start(
        plan["command"], env=plan.get("env") or {}, host=args.host, port=args.port, python=python,
        backend=plan.get("backend"), timeout=args.timeout, report=_Lines(),
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
    try:
        return _serve(_parser().parse_args(argv))
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 0
    except InvalidInput as error:
        say(f"memserve.serve: {error}")
        return 2
    except MemserveError as error:
        print(f"memserve.serve: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
