"""What is measured: a plan that is started, a server that runs, or a backend in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import memserve
from memserve import registry
from memserve.bench import report
from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.errors import MemserveError
from memserve.http.address import is_loopback, parse
from memserve.http.engine import HttpBackend

if TYPE_CHECKING:
    from pathlib import Path

    from memserve.client.generation import Generator
    from memserve.serve.server import Progress, Server
    from memserve.speed import Speed
    from memserve.speed.workloads import Workload

Forecast = Callable[["Workload", "float | None"], "Speed"]
LAYOUT = ("tensor_parallel", "pipeline_parallel", "data_parallel", "kv_dtype")


@dataclass(frozen=True)
class Target:
    """An open generator, who it is, and what is predicted for it."""

    generator: Generator
    facts: dict[str, Any] = field(default_factory=dict)
    """backend, engine_version, model, quantization, card, cards, layout, base_url: as far as known."""
    forecast: Forecast | None = None
    pid: int | None = None
    """The process that computes, where it is one of this machine's."""
    planned: Mapping[str, Any] = field(default_factory=dict)
    """The plan's memory."""
    log: Path | None = None
    """What the engine said while it started."""
    notes: tuple[str, ...] = ()


@contextmanager
def started(name: str, *, base_url: str | None = None, python: str | None = None,
            allow: tuple[str, ...] = (), most: int = 256,
            report: Callable[[str], None] = print) -> Iterator[Target]:  # fmt: skip
    """A plan's engine: started as `memserve serve` does and stopped in the end, or one at an address."""
    from memserve.serve import planned

    answer = planned.read(name, allow)
    plan = answer["plan"]
    program = installed.program_of(plan["command"], plan.get("backend"))[1]
    with nullcontext() if base_url else _start(plan, python, allow, report) as running:
        words: dict[str, Any] = {"base_url": base_url}
        if running:
            words = {"base_url": running.base_url, "api_key": running.reveal_key()}
        with memserve.generator(
            _served(plan, answer), backend=program.client, dialect=program.dialect, concurrency=most,
            max_retries=0, **words,
        ) as opened:  # fmt: skip
            facts = {**_facts(answer, plan), "base_url": words["base_url"]}
            forecast, notes = _forecast(facts)
            held = plan.get("memory_gib_per_card") or {}
            pid, log = (running.pid, running.log) if running else (_process(words["base_url"]), None)
            yield Target(opened, facts, forecast, pid, held, log, notes)


def _start(plan: Mapping[str, Any], python: str | None, allow: tuple[str, ...],
           report: Callable[[str], None]) -> Server:  # fmt: skip
    """The plan's engine, in an environment of its own where no interpreter is named."""
    from memserve.engines import environment
    from memserve.serve import server

    if python is None and plan.get("install"):
        python = str(environment.make(plan["install"], report=report))
    return server.start(
        plan["command"], env=plan.get("env") or {}, python=python, backend=plan.get("backend"), inherit=allow,
        report=_news(report),
    )  # fmt: skip


def _news(report: Callable[[str], None]) -> Callable[[Progress], None]:
    """What the engine says while it starts, each line once."""
    told = [""]

    def said(progress: Progress) -> None:
        if progress.line != told[0]:
            told[0] = progress.line
            report(f"[{progress.seconds:5.0f} s] {progress.line}")

    return said


def _served(plan: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The name under which the plan's server answers."""
    from memserve.engines.install import options_of

    arguments = installed.program_of(plan["command"], plan.get("backend"))[1].arguments(plan["command"]) or ()
    bare, options = options_of(arguments)
    named = options.get("served_model_name") or (bare[0] if bare else None) or options.get("model_path")
    return str(named or options.get("model") or (answer.get("model") or {}).get("id"))


def _facts(answer: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    machine = answer.get("machine") or {}
    gpus = "{nodes}x{cards_per_node}x{card}".format(
        **{"nodes": 1, "cards_per_node": 1, "card": "", **machine}
    )
    return {
        "backend": plan.get("backend"), "engine_version": plan.get("engine_version"),
        "model": (answer.get("model") or {}).get("id"), "checkpoint": plan.get("checkpoint"),
        "quantization": plan.get("quantization"),
        "gpus": "cpu" if machine.get("card") == "CPU" else gpus.removeprefix("1x"),
        **{name: plan.get(name) for name in LAYOUT},
    }  # fmt: skip


@contextmanager
def opened(model: str | None, *, backend: str | None = None, base_url: str | None = None, most: int = 256,
           options: Mapping[str, Any] | None = None, **known: Any) -> Iterator[Target]:  # fmt: skip
    """A server at an address, or a backend; beside an address, `backend` says which engine answers there.

    Without a model it is the backend's own, which is told by the name of what really runs.

    `known`: gpus, engine_version, quantization, tensor_parallel: what a prediction needs to know.
    """
    given = dict(options or {})
    facts: dict[str, Any] = {"backend": backend, "model": model, "base_url": base_url, **known}
    own = base_url is None
    if base_url is not None:
        given = {**_client(backend), "base_url": base_url, "max_retries": 0, **given}
        backend = given.pop("backend")
    if facts.get("gpus") is None and (own or is_loopback(parse(base_url or "").host)):
        facts["gpus"] = _here()
    with memserve.generator(model, backend=backend, concurrency=most, **given) as generator:
        can = generator.capabilities
        facts["backend"] = facts["backend"] or (can.backend if own else installed.speaking(can.engine or ""))
        if model is None or (own and registry.is_own_name(can.backend, model)):
            facts["model"] = can.model or can.backend
        forecast, notes = _forecast(facts)
        remote = generator.identity.get("base_url")
        yield Target(generator, facts, forecast, _process(remote) if remote else os.getpid(), notes=notes)


def _process(address: str) -> int | None:
    """The process behind an address of this machine."""
    port = urlsplit(address).port if is_loopback(parse(address).host) else None
    return port and report.listener(port)


def _client(backend: str | None) -> dict[str, Any]:
    """How a server is spoken to: its engine's own client and dialect, or as any of OpenAI's kind."""
    if backend is None:
        return {"backend": installed.common_client()}
    found = server_of(installed.named(backend)) if installed.can_plan(backend) else None
    if found is None:
        own_wire = isinstance(registry.find(backend), HttpBackend)
        return {"backend": backend if own_wire else installed.common_client()}
    return {"backend": found.programs[0].client, "dialect": found.programs[0].dialect}


def _here() -> str:
    """This machine as a spec."""
    from memserve.hardware import detect

    found = detect()
    return "cpu" if found.card.vendor == "cpu" else f"{found.cards_per_node}x{found.card.name}"


def _forecast(facts: Mapping[str, Any]) -> tuple[Forecast | None, tuple[str, ...]]:
    """What `memserve.speed.predict` says for it; or why nothing is predicted."""
    from memserve.hardware import detect, parse
    from memserve.model import load
    from memserve.speed import predict

    backend, gpus = facts.get("backend"), facts.get("gpus")
    if backend is None or gpus is None:
        return None, ("nothing is predicted: --backend and --gpus say which engine answers on which cards",)
    if not installed.can_plan(backend):
        return None, (f"nothing is predicted: the speed of {backend} is not planned",)
    try:
        model = load(str(facts.get("checkpoint") or facts["model"]))
        machine = detect() if gpus == "cpu" else parse(gpus)
    except MemserveError as error:
        return None, (f"nothing is predicted: {error}",)
    words = {name: facts.get(name) for name in ("engine_version", "quantization", *LAYOUT)}
    if model.quantization is not None and not words["quantization"]:
        words["quantization"] = model.quantization.method

    def forecast(workload: Workload, concurrency: float | None) -> Speed:
        return predict(
            model, machine, backend=str(backend), input_tokens=workload.input_tokens,
            output_tokens=max(1.0, workload.output_tokens), prefix_tokens=workload.prefix_tokens,
            concurrency=concurrency, **words,
        )  # fmt: skip

    return forecast, ()
