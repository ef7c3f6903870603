"""What each release of vLLM and vLLM-Ascend does at start, asked of its own source, beside our table.

python benchmarks/regimes.py FOLDER ... [--write]    unpacked: FOLDER/RELEASE/.../vllm/engine/arg_utils.py
    pip download --no-deps --no-binary :all: --no-build-isolation --no-clean vllm==RELEASE
    leaves one in TMPDIR, though its build step fails
--write keeps what the releases say in tests/data/memory/regimes.json; tests/memory/test_regimes.py holds the
table against it, and fails for a release that memserve plans with and that was not read.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sources import run

from memserve.engines.deployment import Deployment
from memserve.engines.rules import within
from memserve.hardware import parse
from memserve.model import load
from memserve_ascend.memory import accountant as npu
from memserve_vllm.memory import OVERRIDE_CHECKED_SINCE, accountant
from memserve_vllm.memory_run import LAST_V0

if TYPE_CHECKING:
    from collections.abc import Iterable

FIRST = "0.8.2"
"""From here on releases have one batch for every prompt."""
KEPT = Path(__file__).parents[1] / "tests" / "data" / "memory" / "regimes.json"
CARDS = ("T4", "L4", "A100-40GB", "A100-80GB", "H100", "H200", "H20", "B200", "GB10", "RTX5090", "GH200")
NAMES = ("get_batch_defaults", "_set_default_args_v1", "_set_default_args")


class Words:
    """Any name of an enumeration, as itself."""

    def __getattr__(self, name: str) -> str:
        return name


class Unset(SimpleNamespace):
    """Arguments of which none was given."""

    def __getattr__(self, name: str) -> None:
        return None


def function(file: Path) -> ast.FunctionDef:
    """The release's own function."""
    text = file.read_text(encoding="utf-8")
    for name in NAMES:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return node
    raise LookupError(f"{file} has none of {NAMES}")


def asked(file: Path, card: Any) -> tuple[int, int]:
    """Tokens and sequences of the API server on a card."""
    own = function(file)
    platform = SimpleNamespace(
        get_device_total_memory=lambda: card.memory, is_tpu=lambda: False, is_cpu=lambda: False,
        get_device_name=lambda: f"NVIDIA {card.name}", is_xpu=lambda: False,
        is_device_capability=lambda wanted: tuple(card.capability) == tuple(wanted),
        get_max_output_tokens=lambda *_: None, is_rocm=lambda: False,
    )  # fmt: skip
    quiet = SimpleNamespace(**dict.fromkeys(("info", "debug", "warning"), lambda *_: None))
    place: dict[str, Any] = {
        "current_platform": platform, "UsageContext": Words(), "GiB_bytes": 2**30, "sys": sys,
        "logger": quiet, "EngineArgs": Words(),
    }  # fmt: skip
    run([own], place, str(file))
    name = own.name
    if name == "get_batch_defaults":
        tokens, sequences = place[name](None, 1)
        return tokens["OPENAI_API_SERVER"], sequences["OPENAI_API_SERVER"]
    args = Unset()
    usage = type("Usage", (str,), {"value": "server"})("OPENAI_API_SERVER")
    model = SimpleNamespace(runner_type="generate", max_model_len=8192)
    wanted = place[name].__code__.co_argcount
    place[name](*(args, usage, model)[:wanted])
    return args.max_num_batched_tokens, args.max_num_seqs


def utilization(package: Path) -> float | None:
    """The default share of a card, wherever the release keeps it."""
    for name in ("config/cache.py", "config/__init__.py", "config.py", "engine/arg_utils.py"):
        file = package / name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if file.exists() else ():
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "gpu_memory_utilization":
                values = [value.value for value in ast.walk(node) if isinstance(value, ast.Constant)]
                found = [value for value in values if isinstance(value, float) and value > 0.5]
                if found:
                    return found[0]
    return None


def graphs_taken_off(package: Path) -> int:
    """Whether the estimate of CUDA graphs leaves the budget: the default of the release's switch."""
    text = (package / "envs.py").read_text(encoding="utf-8")
    found = re.findall(r'"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS",\s*"(\d)"', text)
    return int(found[0]) if found else 0


def profiled_with(package: Path) -> str | None:
    """What the KV cache that graphs are profiled with has a block for; None: they are not profiled."""
    text = words(package, "worker/gpu_model_runner.py")
    if "min_blocks = ( min(self.max_num_reqs," in text:
        return "sequences"
    return "captured" if "min_blocks = self.compilation_config.max_cudagraph_capture_size" in text else None


def words(package: Path, *names: str) -> str:
    """The release's files of those names as one line; those that it has."""
    files = (package / "v1" / name for name in names)
    return " ".join(" ".join(file.read_text(encoding="utf-8").split()) for file in files if file.exists())


def cache(package: Path) -> dict[str, Any]:
    """How the size of the cache is printed and overridden, and what an encoder's outputs are copied into."""
    planned = words(package, "core/kv_cache_utils.py", "core/kv_cache_planning.py")
    runner = words(package, "worker/gpu_model_runner.py")
    ways = {"budget": "[0] < encoder_budget", "item": "[0] < max_mm_tokens_per_item"}
    return {
        "tokens_from_concurrency": "max_concurrency * max_model_len" in planned,
        "override_checked": "override * bytes_per_block" in planned,
        "null_block_kept_back": "Reserve the null block" in planned,
        "outputs_padded": next((way for way, text in ways.items() if text in runner), None),
    }  # fmt: skip


def v0_only(package: Path, known: Iterable[str]) -> dict[str, bool]:
    """Whether V0 alone takes an architecture (SupportsV0Only, itself or by a base), of those that are known
    for it in some release or have it here."""
    models, bases = package / "model_executor" / "models", {}
    for file in models.glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split("[")[0] for base in node.bases]

    def old(name: str) -> bool:
        return name == "SupportsV0Only" or any(map(old, bases.get(name, ())))

    text = (models / "registry.py").read_text(encoding="utf-8")
    pairs = re.findall(r'"(\w+)":\s*\(\s*"\w+",\s*"(\w+)"', text)
    return {one: old(name) for one, name in sorted(pairs) if old(name) or one in known}


def spans_of_v0(release: str) -> dict[str, list[str]]:
    """The releases in which V0 alone takes an architecture."""
    found: dict[str, list[str]] = run_of(release, "H100").row("v0_only")["spans"]
    return found


def said(package: Path, release: str) -> dict[str, Any]:
    """What one release says."""
    batches = {name: list(asked(package / "engine" / "arg_utils.py", parse(f"1x{name}").card))
               for name in CARDS if run_of(release, name).batch.v1}  # fmt: skip
    return {
        "utilization": utilization(package), "graphs_taken_off": graphs_taken_off(package),
        "graphs_profiled_with": profiled_with(package), **cache(package), "batch": batches,
        "v0_only": v0_only(package, spans_of_v0(release)) if within(release, None, LAST_V0) else {},
    }  # fmt: skip


def run_of(release: str, card: str) -> Any:
    """A usual start of that release on one card."""
    deployment = Deployment("vllm", release, dtype="auto", context=8192)
    return accountant.run(load("llama-8b"), parse(f"1x{card}"), deployment)


def told(release: str, own: dict[str, Any]) -> dict[str, Any]:
    """The same from memserve's table; of the architectures those that the release has."""
    usual = run_of(release, "H100")
    profile = usual.row("graph_profile")
    runs = {card: run_of(release, card).batch for card in own["batch"]}
    spans = spans_of_v0(release)
    return {
        "utilization": usual.row("utilization")["value"],
        "graphs_taken_off": usual.row("graph_estimate")["switch"],
        "graphs_profiled_with": profile["blocks"] if profile["v1"] else None,
        "tokens_from_concurrency": usual.row("pages").get("tokens_from_concurrency", False),
        "null_block_kept_back": bool(usual.row("pages").get("kept_back")),
        "override_checked": within(release, OVERRIDE_CHECKED_SINCE, None),
        "outputs_padded": usual.row("vision").get("padded"),
        "batch": {card: [batch.tokens, batch.sequences] for card, batch in runs.items()},
        "v0_only": {name: within(release, *spans.get(name, (None, "0"))) for name in own["v0_only"]},
    }  # fmt: skip


def releases(folders: Iterable[str]) -> dict[str, Path]:
    """Each release's package."""
    found = {}
    for folder in folders:
        for place in sorted(Path(folder).iterdir()):
            file = next(place.glob("**/vllm/engine/arg_utils.py"), None)
            version = re.search(r"\d+\.\d+\.\d+(\.\d+)?", place.name)
            if (
                file is not None
                and version is not None
                and "ascend" not in place.name
                and within(version[0], FIRST, None)
            ):
                found[version[0]] = file.parents[1]
    return found


ON_NPU = KEPT.with_name("regimes_ascend.json")


def on_npus(folders: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each release of vLLM-Ascend says: FOLDER/vllm-ascend-RELEASE/.../vllm_ascend/worker/worker.py."""
    found = {}
    for place in sorted(one for folder in folders for one in Path(folder).glob("vllm-ascend-*")):
        package = next(place.glob("**/vllm_ascend/platform.py")).parent
        worker, runner, platform = (
            "".join(file.read_text(encoding="utf-8") for file in package.glob(name))
            for name in ("worker/worker*.py", "worker/model_runner_v1.py", "*.py")
        )
        found[place.name.removeprefix("vllm-ascend-")] = {
            "graphs_taken_off": "npugraph_memory_estimate_applied" in worker,
            "encoders_profiled": any(word in runner for word in ("super().profile_run", "mm_budget")),
            "block": 128 if re.search(r"block_size *= *128", platform) else None,
        }
    return found


def told_on_npus(release: str) -> dict[str, Any]:
    """The same from memserve's table."""
    rows = {
        name: npu.facts.row(name, release, parse("1x910B2").card)
        for name in ("graph_estimate", "vision", "block")
    }
    return {
        "graphs_taken_off": bool(rows["graph_estimate"]["value"]),
        "encoders_profiled": rows["vision"].get("profiled", True),
        "block": rows["block"]["value"],
    }


def main() -> None:
    """Print what differs."""
    folders = [word for word in sys.argv[1:] if word != "--write"]
    npus = on_npus(folders)
    other = [f"{release}: {own}, memserve {told_on_npus(release)}" for release, own in npus.items()
             if told_on_npus(release) != own]  # fmt: skip
    print("\n".join([*other, f"{len(npus)} releases of vLLM-Ascend; {len(other)} differ"]))
    read = {release: said(package, release) for release, package in releases(folders).items()}
    differing = 0
    for release, own in read.items():
        for name, value in told(release, own).items():
            if value != own[name]:
                differing += 1
                print(f"{release} {name}: the release {own[name]}, memserve {value}")
    print(
        f"{len(read)} releases, {sum(len(one['batch']) for one in read.values())} batches; {differing} differ"
    )
    if "--write" in sys.argv:
        order = sorted(read, key=lambda release: [int(part) for part in release.split(".")])
        for file, kept in ((KEPT, {release: read[release] for release in order}), (ON_NPU, npus)):
            rows = ",\n".join(f"{json.dumps(release)}: {json.dumps(own)}" for release, own in kept.items())
            file.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
