"""A plan costs less than a tenth of a second: it loads what it needs and no more, and its CPU is bounded."""

import json
import os
import resource
import subprocess
import sys

import pytest
from counting import calls

import memserve
import memserve.plan

CALL = ["llama-70b", "--gpus", "4xV100", "--json"]
LOADED = f"""
import io, json, sys
before, stdout = set(sys.modules), sys.stdout
sys.stdout = io.StringIO()
from memserve.plan.__main__ import main
main({CALL})
after = sorted(set(sys.modules) - before)
from dataclasses import is_dataclass
ours = [vars(sys.modules[name]).values() for name in after if name.startswith("memserve")]
made = [str(one) for values in ours for one in values if isinstance(one, type) and is_dataclass(one)]
stdout.write(json.dumps([after, sorted(set(made))]))
"""
DEAR = {
    "asyncio", "csv", "ctypes", "datetime", "decimal", "difflib", "email", "hashlib", "http",
    "importlib.metadata", "importlib.resources", "logging", "pathlib", "pkgutil", "platform", "random",
    "shlex", "shutil", "socket", "ssl", "statistics", "subprocess", "tempfile", "textwrap", "threading",
    "urllib", "uuid", "xml", "zipfile",
}  # fmt: skip
"""Of the standard library: each costs more than a millisecond with what it imports, and no plan needs it."""
CLOSED = ("client", "conformance", "http", "protocol", "run", "serve", "tokens", "plan.emit", "plan.checking")
MOST_DATACLASSES = 30
"""Python 3.11 takes 0.4 ms to define a frozen dataclass: what only passes through a room is a NamedTuple."""
MOST_TIMES = 20
"""As much CPU as so many empty interpreters: 16 were seen on a machine whose caches others took."""
MOST_CALLS = 100_000
"""About 20 ms: a fault would be several times as many."""


@pytest.fixture(scope="module")
def traces():
    """The modules that one call loads, and the dataclasses that they define."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-S", "-c", LOADED]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120, env=env)
    modules, dataclasses = json.loads(done.stdout)
    return set(modules), dataclasses


@pytest.fixture(scope="module")
def loaded(traces):
    return traces[0]


def test_a_plan_loads_nothing_dear(loaded):
    assert loaded & DEAR == set()
    third = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert {name for name in third if not name.startswith("memserve")} == set()


def test_a_plan_loads_only_the_rooms_it_asks(loaded):
    opened = {f"memserve.{room}" for room in CLOSED}
    assert loaded & opened == set()
    assert {name for name in loaded if name.endswith((".engine", ".open"))} == set()


def test_a_plan_defines_few_dataclasses(traces):
    assert 10 < len(traces[1]) <= MOST_DATACLASSES, traces[1]


def _cpu(words, env):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, env=env, check=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_a_plan_takes_the_cpu_of_few_empty_processes(tmp_path):
    """The lowest of several turns: a busy machine makes both dearer alike."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    plan, empty = ["-m", "memserve.plan", *CALL], ["-c", "pass"]
    _cpu(plan, env)  # writes the byte code
    turns = [(_cpu(plan, env), _cpu(empty, env)) for _ in range(7)]
    assert min(turn[0] for turn in turns) < MOST_TIMES * min(turn[1] for turn in turns)


@pytest.mark.parametrize(("model", "gpus"), [("llama-70b", "4xV100"), ("deepseek-v3", "2x8xH100")])
def test_a_warm_plan_is_little_work(model, gpus):
    memserve.plan.best(model, gpus)
    assert calls(lambda: memserve.plan.best(model, gpus)) < MOST_CALLS


@pytest.mark.parametrize(("model", "gpus"), [
    ("deepseek-v4", "8xH200"), ("deepseek-v4-flash", "4xH100"), ("gpt-oss-120b", "2xH100"),
    ("kimi-k2.6", "8xB200"),
])  # fmt: skip
def test_cards_that_hold_many_requests_are_priced_with_many(model: str, gpus: str) -> None:
    """Experts in 4 bits beside 8-bit layers leave the room that memory counts."""
    plan = memserve.plan.best(model, gpus)
    one, busy = plan.speed["output_tokens_per_s"]["likely"], plan.cost["tokens_per_s_at_full_load"]
    assert plan.max_concurrency > 8 and busy > 2 * one
