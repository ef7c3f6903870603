"""memserve serve --backend ...: opens the models, listens, tells where, and ends gracefully."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from memserve import cli, client, registry
from memserve.errors import InvalidInput, MemserveError
from memserve.http.address import is_loopback
from memserve.options import value
from memserve.protocol import Task
from memserve.serve.endpoint.answered import refusal
from memserve.serve.endpoint.app import Endpoint, Limits, Models, log
from memserve.serve.server import private

_SPARE_THREADS = 16
KEY = "MEMSERVE_API_KEY"
"""The variable whose key is asked for, where it is set."""


def serve(args: argparse.Namespace) -> int:
    """Until somebody ends it."""
    if args.no_key and (args.host in ("0.0.0.0", "::") or not is_loopback(args.host)):
        raise InvalidInput(f"--no-key is for loopback, not for {args.host}")
    if args.port is not None and not 0 < args.port < 65536:
        raise InvalidInput(f"port {args.port} is not within 1..65535")
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(args, _models(args)))
    cli.tell("stopped")
    return cli.DONE


def _models(args: argparse.Namespace) -> Models:
    if args.config is not None:
        return configured(args.config, args.concurrency)
    bad = next((word for word in args.options if "=" not in word), None)
    if bad is not None:
        raise InvalidInput(f"--options takes K=V, not {bad!r}")
    options = {k: value(v) for k, _, v in (word.partition("=") for word in args.options)}
    options = {"concurrency": args.concurrency, **options}
    return opened(args.backend, args.model, args.name, args.task, options)


async def _run(args: argparse.Namespace, models: Models) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.set_default_executor(ThreadPoolExecutor(args.concurrency + _SPARE_THREADS, "memserve-serve"))
    key, where = _key(args)
    limits = Limits(args.concurrency, args.queue, args.max_body * 2**20)
    endpoint = Endpoint(models, key, limits)
    runner = web.AppRunner(
        endpoint.app(), handler_cancellation=True, access_log=None, shutdown_timeout=args.grace
    )
    taking = None
    try:
        await runner.setup()
        taking = await _listen(runner, args.host, args.port)
        _on_signal(loop, stop)
        host, port = taking.sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        names = ", ".join(row["id"] for row in models.rows)
        print(f"ready: http://{shown}:{port}/v1  key: {where}  models: {names}", flush=True)
        await stop.wait()
        endpoint.ending = True
    finally:
        if taking is not None:
            taking.close()
        await runner.cleanup()
        await asyncio.to_thread(models.close)


class Connection(web.RequestHandler):
    """One caller's connection: what is no HTTP is told as all errors are, and logged without its words."""

    __slots__ = ()

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:  # fmt: skip
        """A header that cannot be read may be the one with the key."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        log.warning("a request was refused: %s", type(exc).__name__)
        response = web.json_response(refusal(status, "the request is no HTTP"), status=status)
        response.force_close()
        return response


async def listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    """Take connections; whoever closes the server may then clean the runner up."""
    server = runner.server
    assert server is not None

    loop = asyncio.get_running_loop()

    def connected() -> Connection:
        return Connection(server, loop=loop, access_log=None)  # type: ignore[arg-type]

    return await loop.create_server(connected, host, port, backlog=128)


async def _listen(runner: web.AppRunner, host: str, port: int | None) -> asyncio.Server:
    try:
        return await listen(runner, host, port or 0)
    except OSError as error:
        raise InvalidInput(f"cannot listen on port {port} of {host}: {error.strerror}") from error


def _on_signal(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """The first asks for a graceful end; the second ends at once."""

    def first(sign: signal.Signals) -> None:
        loop.remove_signal_handler(sign)
        signal.signal(sign, signal.SIG_DFL)
        stop.set()

    for sign in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C raises KeyboardInterrupt
            loop.add_signal_handler(sign, first, sign)


def _key(args: argparse.Namespace) -> tuple[str | None, Any]:
    """The key that is asked for, and where it lies: the environment's, or a file's, kept if it holds one."""
    if args.no_key:
        return None, "none, none is asked for: this machine's users can call it"
    given = os.environ.get(KEY, "").strip()
    if given:
        return given, f"${KEY}"
    path = args.key_file or Path(tempfile.mkdtemp(prefix="memserve-")) / "key"
    kept = _kept(path)
    key = kept or secrets.token_urlsafe(32)
    if kept is None:
        private(path, key + "\n")
    return key, path


def _kept(path: Path) -> str | None:
    """The key in a file that only its owner, who starts this, can read."""
    with suppress(OSError, ValueError, AttributeError):  # no getuid on Windows
        about, found = path.lstat(), path.read_text("ascii").strip()
        own = stat.S_ISREG(about.st_mode) and not about.st_mode & 0o077 and about.st_uid == os.getuid()
        return found if own and found and found.isprintable() else None
    return None


_OPEN: dict[Task, Callable[..., Any]] = {
    "generate": client.generator, "embed": client.embedder, "rerank": client.reranker,
}  # fmt: skip
_KEYS = {"backend": {"id", "backend", "model", "task", "options"}, "route": {"id", "route", "policy"}}


def opened(backend: str, model: str | None, names: Sequence[str], task: Task | None,
           options: Mapping[str, Any]) -> Models:  # fmt: skip
    """One model; without a task, what it is for; without a model, all that the backend does by default."""
    found = Models()
    able = registry.find(backend).capabilities.tasks
    order = [one for one in cast("tuple[Task, ...]", ("generate", "embed", "rerank")) if one in able]
    refused: list[MemserveError] = []
    for one in [task] if task else order:
        try:
            found.add(one, _OPEN[one](model, backend=backend, **options), names)
        except MemserveError as error:
            refused.append(error)
            continue
        if model is not None:
            break
    if not found.handles:
        raise refused[0] if refused else InvalidInput(f"backend {backend!r} has no task to serve")
    return found


def configured(path: Path, concurrency: int) -> Models:
    """Several models, from a JSON file; a route names others that stand above it."""
    try:
        rows = list(json.loads(path.read_text(encoding="utf-8"))["models"])
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidInput(f'{path} is not of the form {{"models": [...]}}') from None
    if not rows:
        raise InvalidInput(f"{path} names no model", hint="docs/endpoint.md shows a file")
    found = Models()
    try:
        for row in rows:
            _add(found, row, concurrency)
    except BaseException:
        found.close()
        raise
    return found


def _add(found: Models, row: Any, concurrency: int) -> None:
    known = row if isinstance(row, dict) else {}
    own, kind = known.get("id"), "route" if "route" in known else "backend"
    if not isinstance(own, str) or not _KEYS[kind].issuperset(known) or not known.get(kind):
        keys = "; or ".join(", ".join(sorted(keys)) for keys in _KEYS.values())
        raise InvalidInput(f"model {own!r} of the file is not made of: {keys}")
    if kind == "route":
        from memserve.run.routing import route

        members = [found.find("generate", name)[1] for name in known["route"]]
        found.add("generate", route(members, known.get("policy", "fallback")), [own])
        return
    options = {"concurrency": concurrency, **known.get("options", {})}
    one = opened(known["backend"], known.get("model"), [own], known.get("task"), options)
    for task, handles in one.handles.items():
        found.add(task, handles[own], [own])
