"""python -m memserve.serve PLAN.json: start what was planned, wait until it answers, stop it with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput, MemserveError
from memserve.serve import environment, server
from memserve.words import Parser, say

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


def read_plan(name: str) -> dict[str, Any]:
    """The "plan" object of a planner's JSON answer."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        answer = json.loads(text)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(
            f"{name} is not JSON: {error}", hint="save the output of memserve.plan --json"
        ) from error
    plan = answer.get("plan", answer) if isinstance(answer, dict) else None
    if not isinstance(plan, dict):
        raise InvalidInput(f"{name} holds no plan that fits", hint="memserve.plan --why says why")
    command = plan.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise InvalidInput(f"{name} names no command to start", hint="HTTP providers need no server")
    return plan


class _Lines:
    """One line when something new is said, and at least one in a while."""

    def __init__(self) -> None:
        self._last, self._when = "", 0.0

    def __call__(self, progress: server.Progress) -> None:
        due = progress.seconds - self._when >= _REFRESH_SECONDS
        if due and (progress.line != self._last or progress.seconds - self._when >= 6 * _REFRESH_SECONDS):
            print(f"[{progress.seconds:5.0f} s] {progress.line}", file=sys.stderr, flush=True)
            self._last, self._when = progress.line, progress.seconds


def _write_key(path: Path, key: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(key + "\n")


def _python(args: argparse.Namespace, plan: dict[str, Any]) -> str | None:
    if args.python or not plan.get("install"):
        return args.python  # type: ignore[no-any-return]
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    return str(environment.make(plan["install"], folder=args.environment, report=say))


def _serve(args: argparse.Namespace) -> int:
    plan = read_plan(args.plan)
    if args.dry_run:
        print(plan.get("install", ""), " ".join(plan["command"]), sep="\n")
        return 0
    python = _python(args, plan)
    started = server.start(
        plan["command"], env=plan.get("env") or {}, host=args.host, port=args.port, python=python,
        timeout=args.timeout, report=_Lines(),
    )  # fmt: skip
    with started:
        key_file = args.key_file or started.log.with_name("key")
        _write_key(key_file, started.reveal_key())
        print(f"ready: {started.base_url}  key: {key_file}  log: {started.log}", flush=True)
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
