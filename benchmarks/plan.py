"""What a plan costs to make: CPU of the whole process above `python -c pass`, and a warm `plan.best`.

    python benchmarks/plan.py [--rounds 15] [--peers]

Processes run in turn, so that a busy machine touches all alike; the figure is the median of CPU
(user and system) and its lowest. Byte code is cached first, as after any installation. Calls that are
refused or do not fit are measured, too. `--peers` adds the start-up of peers that are installed here:
hf-mem (its import), aiconfigurator, llm-d-planner, gpustack.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from statistics import median

CALLS = (
    "llama-70b --gpus 4xV100 --json",
    "llama-70b --gpus 4xV100",
    "llama-70b --gpus 4xV100 --why",
    "llama-70b --gpus 4xV100 --all --json",
    "llama-70b --gpus 4xV100 --objective throughput --json",
    "llama-70b --gpus 4xA100 --workload longmemeval-s --json",
    "llama-70b --gpus 8x910B4 --json",
    "llama-8b --gpus 1xL4 --json",
    "qwen3-32b --gpus 2xL4 --json",
    "gpt-oss-120b --gpus 1xH100 --json",
    "Qwen/Qwen3-235B-A22B --gpus 8xH100 --json",
    "deepseek-v3 --gpus 2x8xH100 --json",
    "llama-405b --gpus 4xT4 --json",
    "llama-70b --gpus 4xV999 --json",
    "--check 'vllm serve Qwen/Qwen3-32B --tensor-parallel-size 2' --gpus 2xL4 --json",
    "gpt-4o-mini --backend openai --json",
    "llama-8b --gpus 1xL4 --embedder BAAI/bge-m3 --json",
    "llama-8b --gpus 1xA100 --train lora --json",
    "llama-8b --gpus 1xL4 --emit compose",
    "llama-70b --gpus any --json",
)
CASES = (
    ("llama-70b", "4xV100"), ("llama-8b", "1xL4"), ("qwen3-32b", "2xL4"), ("gpt-oss-120b", "8xH100"),
    ("Qwen/Qwen3-235B-A22B", "8xH100"), ("deepseek-v3", "2x8xH100"), ("deepseek-r1", "4x8xA100"),
    ("meta-llama/Llama-3.1-405B-Instruct", "2x8xH100"), ("llama-70b", "8x910B4"), ("llama-70b", "4xT4"),
)  # fmt: skip
METADATA = "import importlib.metadata"
"""The yardstick: a plan costs at most three times as much above an empty process."""
WIDTH = max(map(len, CALLS))
PEERS = {
    "hf-mem": ("hf_mem", "import hf_mem"),
    "aiconfigurator": ("aiconfigurator", "import aiconfigurator.sdk.config"),
    "llm-d-planner": ("planner", "import planner.capacity_planner"),
    "gpustack": ("gpustack", "import gpustack.policies.utils"),
}


def cpu_ms(command: list[str], env: dict[str, str]) -> float:
    """CPU of one child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1e3 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def commands(peers: bool) -> dict[str, list[str]]:
    """What is measured, by name."""
    python = sys.executable
    found = {
        "python -c pass": [python, "-c", "pass"],
        METADATA: [python, "-c", METADATA],
        "import memserve": [python, "-c", "import memserve"],
        **{call: [python, "-m", "memserve.plan", *shlex.split(call)] for call in CALLS},
    }
    for name, (module, statement) in PEERS.items() if peers else ():
        if importlib.util.find_spec(module) is None:
            print(f"{name}: not installed here")
        else:
            found[name] = [python, "-c", statement]
    return found


def start_ups(rounds: int, peers: bool) -> None:
    """Median and lowest CPU of each process above an empty one."""
    with tempfile.TemporaryDirectory() as cache:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        every = commands(peers)
        measured: dict[str, list[float]] = {name: [] for name in every}
        for command in every.values():
            cpu_ms(command, env)
        for _ in range(rounds):
            for name, command in every.items():
                measured[name].append(cpu_ms(command, env))
    empty = measured["python -c pass"]
    yard = median(measured[METADATA]) - median(empty)
    print(f"{'process':{WIDTH}} {'CPU ms':>8} {'above':>8} {'lowest above':>13} {'of metadata':>12}")
    for name, values in measured.items():
        above = median(values) - median(empty)
        lowest = min(values) - min(empty)
        print(f"{name:{WIDTH}} {median(values):8.1f} {above:8.1f} {lowest:13.1f} {above / yard:11.2f}x")


def warm(rounds: int) -> None:
    """CPU of a plan in a process that has planned before."""
    import memserve

    print(f"\n{'warm plan.best':56} {'CPU ms':>8} {'lowest':>8}")
    for model, gpus in CASES:
        memserve.plan.best(model, gpus)
        taken = []
        for _ in range(rounds):
            started = time.process_time()
            memserve.plan.best(model, gpus)
            taken.append(1e3 * (time.process_time() - started))
        print(f"{model + ' on ' + gpus:56} {median(taken):8.1f} {min(taken):8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    start_ups(options.rounds, options.peers)
    warm(options.rounds)


if __name__ == "__main__":
    main()
