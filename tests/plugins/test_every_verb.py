"""Two engines unknown to memserve go through every verb: the example, and one whose card nobody has."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import memserve

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "examples" / "plugin" / "checkpoint")
SECONDS = 120


@dataclass(frozen=True)
class Other:
    """A backend of somebody else, its card, and what is known of its command."""

    name: str
    card: str
    starts: str
    host: str
    image: str
    joins: str
    """What stands in the second node's command."""
    answer: str


TOY = Other(
    "toy", "L4", "toy-serve", "--host", "python:3.12-slim", "--nodes 2 --node 1 --head NODE_0:7008", ""
)
ABACUS = Other("abacus", "ABACUS-9", "python -m abacus.serving", "--listen", "abacus/server:2.0",
               "ray start", "nine")  # fmt: skip
VALUES = {"toy": "memserve_toy:backend", "abacus": "abacus:backend"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine on which both are installed."""
    site = tmp_path_factory.mktemp("site")
    for name, value in VALUES.items():
        info = site / f"{name}_of_somebody-1.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text(f"[memserve.backends]\n{name} = {value}\n")
    path = os.pathsep.join((str(site), str(ROOT / "examples" / "plugin"), str(Path(__file__).parent)))
    kept = {"MEMSERVE_CONFIG_DIR": str(site), "XDG_CACHE_HOME": str(site)}
    return {**os.environ, **kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(params=[TOY, ABACUS], ids=lambda other: other.name)
def other(request: pytest.FixtureRequest) -> Other:
    found: Other = request.param
    return found


def said(place: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "memserve.plan", *words], env=place, capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def planned(place: dict[str, str], other: Other, gpus: str, *words: str) -> dict[str, Any]:
    line = (MODEL, "--gpus", gpus, "--backend", other.name, "--json", *words)
    found: dict[str, Any] = json.loads(said(place, *line))
    return found


def test_it_is_planned_and_timed(place: dict[str, str], other: Other) -> None:
    answer = planned(place, other, f"2x{other.card}")
    plan = answer["plan"]
    assert answer["fits"] and plan["backend"] == other.name
    assert answer["machine"]["card"] == other.card
    assert shlex.join(plan["command"]).startswith(f"{other.starts} {MODEL}")
    assert plan["kv_cache_tokens"] > plan["context"]
    assert plan["speed"]["tpot_ms"]["likely"] > 0


def test_its_commands_are_checked(place: dict[str, str], other: Other) -> None:
    gpus = f"2x{other.card}"
    plan = planned(place, other, gpus, "--tp", "2")["plan"]
    judged = json.loads(said(place, "--check", shlex.join(plan["command"]), "--gpus", gpus, "--json"))["plan"]
    figures = ("backend", "tensor_parallel", "data_parallel", "dtype", "context", "memory_gib_per_card",
               "kv_cache_tokens", "install")  # fmt: skip
    assert {name: judged[name] for name in figures} == {name: plan[name] for name in figures}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("form", ["compose", "slurm"])
def test_it_is_packed(place: dict[str, str], other: Other, form: str) -> None:
    text = said(place, MODEL, "--gpus", f"2x{other.card}", "--backend", other.name, "--emit", form)
    assert other.starts in text.replace('"\n      - "', " ") and other.host in text
    assert form == "slurm" or f'"{other.image}"' in text


def test_it_spans_two_nodes(place: dict[str, str], other: Other) -> None:
    nodes = planned(place, other, f"2x2x{other.card}", "--tp", "4")["plan"]["nodes"]
    assert {step["node"] for step in nodes} == {0, 1}
    assert any(step["node"] == 1 and other.joins in shlex.join(step["command"]) for step in nodes)


def test_kuberay_is_for_engines_on_ray(place: dict[str, str]) -> None:
    line = (MODEL, "--gpus", f"2x2x{ABACUS.card}", "--backend", "abacus", "--tp", "4", "--emit", "kuberay")
    assert 'kind: "RayJob"' in said(place, *line)


@pytest.mark.slow
def test_cards_of_a_maker_that_nobody_knows_are_counted_and_handed_in(place: dict[str, str]) -> None:
    line = (MODEL, "--gpus", f"2x{ABACUS.card}", "--backend", "abacus", "--tp", "2", "--emit")
    said_in = {form: said(place, *line, form) for form in ("compose", "slurm", "kubernetes", "kuberay")}
    expected = {
        "compose": ("/dev/bead0", "/dev/bead1", "/dev/frame", "/opt/abacus:/opt/abacus:ro"),
        "slurm": ("#SBATCH --gres=bead:2",),
        "kubernetes": ("abacus.example/bead: 2", 'key: "abacus.example/bead"', 'path: "/opt/abacus"'),
        "kuberay": ("abacus.example/bead: 2", "BEAD"),
    }
    assert [(form, one) for form, all_ in expected.items() for one in all_ if one not in said_in[form]] == []


@pytest.mark.slow
def test_it_serves_and_its_log_is_learnt_from(place: dict[str, str], other: Other, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(planned(place, other, f"1x{other.card}")))
    words = [sys.executable, "-m", "memserve.serve", str(file), "--python", sys.executable]
    with subprocess.Popen(words, env=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            base_url, key, log = ready(run)
            with memserve.generator(MODEL, backend="openai", base_url=base_url, api_key=key) as generator:
                text = generator.generate("How many beads?", max_tokens=8).text
        finally:
            run.send_signal(signal.SIGTERM)  # a shell that runs this in the background has SIGINT ignored
            run.wait(SECONDS)
    assert run.returncode == 0 and text and other.answer in text
    learnt = json.loads(said(place, "--calibrate", log, "--gpus", f"1x{other.card}", "--json"))
    assert learnt["calibration"]["non_torch"] in (0.3, 0.75)


@pytest.mark.slow
def test_it_is_measured_beside_its_plan(place: dict[str, str], other: Other, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(planned(place, other, f"1x{other.card}")))
    words = [sys.executable, "-m", "memserve", "bench", str(file), "--python", sys.executable, "--json"]
    load = ["--workload", "60:8:6", "--concurrency", "1,2", "-o", str(tmp_path / "bench.json")]
    done = subprocess.run(
        [*words, *load], env=place, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["failed"] for row in found["results"]] == [0, 0]
    assert all(row["predicted"]["tpot_ms"]["likely"] > 0 for row in found["results"])
    assert found["target"]["backend"] == other.name and found["memory"]["process_gib"] > 0
    assert found["memory"]["planned_gib_per_card"]["weights"] > 0
    learnt = json.loads(said(place, "--calibrate", str(tmp_path / "bench.json"), "--json"))
    assert learnt["speeds"][0]["backend"] == other.name
    assert learnt["calibration"]["non_torch"] in (0.3, 0.75)  # the start-up log in the report


def ready(run: subprocess.Popen[str]) -> tuple[str, str, str]:
    """The address, the key and the log, once it answers."""
    assert run.stdout is not None and run.stderr is not None
    line = run.stdout.readline()
    assert line.startswith("ready:"), run.stderr.read()
    _, base_url, _, key, _, log = line.split()
    return base_url, Path(key).read_text().strip(), log
