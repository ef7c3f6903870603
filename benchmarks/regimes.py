"""The batch that each release of vLLM takes by default, asked of its own source, beside memserve's table.

python benchmarks/regimes.py FOLDER    unpacked releases: FOLDER/RELEASE/.../vllm/engine/arg_utils.py
    pip download --no-deps --no-binary :all: --no-build-isolation --no-clean vllm==RELEASE
    leaves one in TMPDIR, though its build step fails
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from memserve.engines.deployment import Deployment
from memserve.hardware import parse
from memserve.model import load
from memserve_vllm.memory import accountant

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


def function(file: Path) -> tuple[str, str]:
    """The release's own function, by name, and its source."""
    text = file.read_text(encoding="utf-8")
    for name in NAMES:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                node.decorator_list = []
                return name, "from __future__ import annotations\n" + ast.unparse(node)
    raise LookupError(f"{file} has none of {NAMES}")


def asked(file: Path, card: Any) -> tuple[int, int]:
    """Tokens and sequences of the API server on a card."""
    name, text = function(file)
    platform = SimpleNamespace(
        get_device_total_memory=lambda: card.memory, is_tpu=lambda: False, is_cpu=lambda: False,
        get_device_name=lambda: f"NVIDIA {card.name}", is_xpu=lambda: False,
        is_device_capability=lambda wanted: tuple(card.capability) == tuple(wanted),
        get_max_output_tokens=lambda *_: None, is_rocm=lambda: False,
    )  # fmt: skip
    for module, value in (("vllm.platforms", {"current_platform": platform}),
                          ("vllm.usage.usage_lib", {"UsageContext": Words()})):  # fmt: skip
        made = ModuleType(module)
        vars(made).update(value)
        sys.modules[module] = made
    quiet = SimpleNamespace(**dict.fromkeys(("info", "debug", "warning"), lambda *_: None))
    place: dict[str, Any] = {
        "current_platform": platform, "UsageContext": Words(), "GiB_bytes": 2**30, "sys": sys,
        "logger": quiet, "EngineArgs": Words(),
    }  # fmt: skip
    exec(compile(textwrap.dedent(text), str(file), "exec"), place)
    if name == "get_batch_defaults":
        tokens, sequences = place[name](None, 1)
        return tokens["OPENAI_API_SERVER"], sequences["OPENAI_API_SERVER"]
    args = Unset()
    usage = type("Usage", (str,), {"value": "server"})("OPENAI_API_SERVER")
    model = SimpleNamespace(runner_type="generate", max_model_len=8192)
    wanted = place[name].__code__.co_argcount
    place[name](*(args, usage, model)[:wanted])
    return args.max_num_batched_tokens, args.max_num_seqs


def main() -> None:
    """Print what differs."""
    model, differing, compared = load("llama-8b"), 0, 0
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        file = next(folder.glob("**/vllm/engine/arg_utils.py"), None)
        if file is None:
            continue
        for name in CARDS:
            machine = parse(f"1x{name}")
            run = accountant.run(model, machine, Deployment("vllm", folder.name, dtype="auto", context=8192))
            if not run.batch.v1:
                continue
            own = asked(file, machine.card)
            compared += 1
            told = (run.batch.tokens, run.batch.sequences)
            if own != told:
                differing += 1
                print(f"{folder.name} {name}: the release takes {own}, memserve {told}")
    print(f"{compared} releases on cards compared, {differing} differ")


if __name__ == "__main__":
    main()
