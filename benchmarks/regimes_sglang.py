"""What each release of SGLang takes of a card by default, asked of its own source, beside memserve's table.

python benchmarks/regimes_sglang.py FOLDER ... [--write]    unpacked: FOLDER/sglang-RELEASE/.../srt/*.py

Its fraction of the memory, tokens of a prefill and largest captured batch are what its own statements set on
arguments of which none was given; all else that they name is absent and false. --write keeps what they say in
tests/data/memory/regimes_sglang.json, as regimes.py does.
"""

from __future__ import annotations

import ast
import builtins
import copy
import json
import math
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sources import run

from memserve.engines.deployment import Deployment, Layout
from memserve.hardware import parse
from memserve.model import load
from memserve_sglang.memory import MIB, chunk_of, fraction, graphs_of

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT = Path(__file__).parents[1] / "tests" / "data" / "memory" / "regimes_sglang.json"
CARDS = ("T4", "RTX4090", "RTX5090", "A100-40GB", "L40S", "H100", "A100-80GB", "H20", "H200", "B200")
RANKS = (1, 2, 8)
SET = ("mem_fraction_static", "chunked_prefill_size", "cuda_graph_max_bs")
ASKED = ("use_", "is_", "adjust", "_handle", "_gen", "post_", "get_", "mamba_", "reserve")
"""How methods begin that are not the question; each answers no."""


class Absent:
    """What a release imports or asks beside: false, and so is all of it."""

    def __getattr__(self, name: str) -> Absent:
        return self

    def __call__(self, *_: Any, **__: Any) -> Absent:
        return self

    def __bool__(self) -> bool:
        return False


class Given(SimpleNamespace):
    """Arguments of which none was given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "_resolved":
            return lambda: self
        return (lambda *_: False) if name.startswith(ASKED) else None


class Place(dict[str, Any]):
    """Where the statements run."""

    def __missing__(self, name: str) -> Absent:
        if hasattr(builtins, name):
            raise KeyError(name)
        return Absent()


@cache
def functions(file: Path) -> dict[str, ast.stmt]:
    """The functions of a file, by name; of none where it is not there."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    return {node.name: node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


@cache
def defaults(file: Path) -> dict[str, Any]:
    """The arguments' plain defaults."""
    body = next(
        node.body
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "ServerArgs"
    )
    plain = (
        node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant)
    )
    return {ast.unparse(node.target): ast.literal_eval(node.value or node) for node in plain}


def asked(package: Path, mib: float, ranks: int) -> list[Any]:
    """Fraction, prefill and captured batch on a card; None: elsewhere in the release."""
    decode, prefill = (SimpleNamespace(max_bs=None, bs=None, backend="full") for _ in range(2))
    said = {"tp_size": ranks, "pp_size": 1, "dp_size": 1, "attn_dp_size": 1, "page_size": 1, "device": "cuda",
            "model_path": "model", "max_prefill_tokens": 16384, "get_model_config": Absent(),
            "cuda_graph_config": SimpleNamespace(decode=decode, prefill=prefill)}  # fmt: skip
    own = defaults(package / "server_args.py") | dict.fromkeys(SET) | said
    given = Given(**own)
    place = Place(
        math=math, copy=copy, self=given, gpu_mem=mib, resolving_view=lambda one: one, is_cuda=lambda: True,
        get_device_memory_capacity=lambda *_: mib,
        declare_resolution=lambda one, _, **found: one.__dict__.update(found),
    )  # fmt: skip
    hooks = package / "arg_groups"
    settings = functions(hooks / "memory_hook.py") | functions(hooks / "cuda_graph_hook.py")
    methods = functions(package / "server_args.py")
    parts = ("graph", "gpu_mem", "reserve")
    used = settings or {k: v for k, v in methods.items() if any(part in k for part in parts)}
    name = next((name for name in used if name.endswith("handle_gpu_memory_settings")), None)
    if name is None:
        body = methods["__post_init__"].body  # type: ignore[attr-defined]
        wanted = [f"{one} is None" for one in SET]
        run((node for node in body if isinstance(node, ast.If)
             and any(one in ast.unparse(node.test) for one in wanted)), place, "server_args.py")  # fmt: skip
    else:
        run(used.values(), place, "server_args.py")
        own_methods = (one for one in used if one.startswith(("_generate", "reserve")))
        given.__dict__.update({one: place[one].__get__(given) for one in own_methods})
        place[name](*(given, mib)[: place[name].__code__.co_argcount])
    found = [getattr(given, one) for one in SET]
    return [round(found[0], 4), found[1], found[2] or decode.max_bs]


def told(release: str, name: str, ranks: int) -> list[Any]:
    """The same from memserve's table."""
    machine = parse(f"1x{name}")
    start = Deployment("sglang", release, dtype="bfloat16", context=8192, layout=Layout(tensor=ranks))
    share = fraction(load("llama-8b"), machine, start)
    return [round(share, 4), chunk_of(machine.card, start), graphs_of(machine.card, start)]


def differing(release: str, own: dict[str, list[list[Any]]]) -> Iterator[str]:
    """Where the table says otherwise; what the release sets elsewhere is not asked."""
    for name, starts in own.items():
        for ranks, seen in zip(RANKS, starts, strict=True):
            ours = [
                None if one is None else two
                for one, two in zip(seen, told(release, name, ranks), strict=True)
            ]
            if ours != seen:
                yield f"{release} {name} {ranks} ranks: the release {seen}, memserve {ours}"


def main() -> None:
    """Print what differs."""
    folders = [Path(word) for word in sys.argv[1:] if word != "--write"]
    files = (file for folder in folders for file in sorted(folder.glob("sglang-*/**/srt/server_args.py")))
    read = {}
    for file in files:
        release = next(part for part in file.parts if part.startswith("sglang-")).removeprefix("sglang-")
        memory = {name: parse(f"1x{name}").card.driver_memory / MIB for name in CARDS}
        read[release] = {
            name: [asked(file.parent, mib, ranks) for ranks in RANKS] for name, mib in memory.items()
        }
    found = [line for release, own in read.items() for line in differing(release, own)]
    print(
        "\n".join(
            [
                *found,
                f"{len(read)} releases, {len(read) * len(CARDS) * len(RANKS)} starts; {len(found)} differ",
            ]
        )
    )
    if "--write" in sys.argv:
        rows = ",\n".join(f"{json.dumps(release)}: {json.dumps(own)}" for release, own in read.items())
        KEPT.write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
