"""Writes the reference from what is installed: calls, commands, errors, capabilities, models, cards, prices.

python docs/reference.py FOLDER
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
import textwrap
import typing
from dataclasses import fields, is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ForwardRef, is_typeddict

import memserve
from memserve import errors, files, hardware, registry
from memserve.__main__ import VERBS
from memserve.model import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = Path(__file__).parents[1]
_overloads = getattr(typing, "get_overloads", lambda _: [])  # Python 3.10 has none
SOURCE = ROOT / "src" / "memserve"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar inside a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "-"
    return str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def packages() -> list[str]:
    """The packages that promise names: memserve and those that have an `__all__`."""
    found = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    listed = [name for name in found if getattr(import_module(f"memserve.{name}"), "__all__", None)]
    return ["memserve", *(f"memserve.{name}" for name in listed)]


def api() -> str:
    """Every public name with its signature and its sentence."""
    promise = "[stability](../stability.md)" if (ROOT / "docs" / "stability.md").exists() else "the changelog"
    parts = [f"# Calls\n\nWhat `__all__` names is public; {promise} says what that means."]
    for package in packages():
        module = import_module(package)
        parts.append(f"## {package}\n\n{inspect.getdoc(module) or ''}")
        parts += [
            _entry(name, getattr(module, name))
            for name in module.__all__
            if not inspect.ismodule(getattr(module, name))
        ]
    return "\n\n".join(parts)


def _entry(name: str, found: Any) -> str:
    if inspect.isclass(found):
        return f"### {name}\n\n{_doc(found)}\n\n{_members(found)}".rstrip()
    if inspect.isroutine(found):
        shown = "\n".join(_signature(name, call) for call in (_overloads(found) or [found]))
        return f"### {name}\n\n```python\n{shown}\n```\n\n{_doc(found)}"
    return f"### {name}\n\n`{str(found).replace('typing.', '')}`"


def _signature(name: str, found: Callable[..., Any]) -> str:
    try:
        return f"{name}{inspect.signature(found)}".replace("'", "")
    except ValueError:
        return f"{name}(...)"


def _doc(found: object) -> str:
    return (inspect.getdoc(found) or "").replace("<", "&lt;")


def _members(found: type) -> str:
    parts = []
    if is_dataclass(found) or is_typeddict(found):
        types = {f.name: f.type for f in fields(found)} if is_dataclass(found) else found.__annotations__
        said = _sentences(found)
        rows = [(f"`{name}`", f"`{_type(kind)}`", said.get(name, "")) for name, kind in types.items()]
        parts.append(table(["field", "type", ""], rows))
    own = [
        (f"`{_signature(name, value) if inspect.isfunction(value) else name}`", _doc(value).split("\n")[0])
        for name, value in inspect.getmembers(
            found, lambda v: inspect.isfunction(v) or isinstance(v, property)
        )
        if not name.startswith("_") and inspect.getdoc(value)
    ]
    return "\n\n".join([*parts, *([table(["member", ""], own)] if own else [])])


def _type(kind: Any) -> str:
    shown = kind.__forward_arg__ if isinstance(kind, ForwardRef) else str(kind)
    return shown.removeprefix("NotRequired[").removesuffix("]") if shown.startswith("NotRequired[") else shown


def _sentences(found: type) -> dict[str, str]:
    """The text below each field in the source."""
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(found))).body[0]
    except (OSError, TypeError, SyntaxError):
        return {}
    lines = body.body if isinstance(body, ast.ClassDef) else []
    found_in: dict[str, str] = {}
    for field, text in pairwise(lines):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found_in[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found_in


def command_line() -> str:
    """What each verb says to --help."""
    modules = ["memserve", *(f"memserve.{verb}" for verb in VERBS)]
    world = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    parts = ["# Command line"]
    for module in modules:
        words = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(words, env=world, capture_output=True, text=True, timeout=60, check=True)
        parts.append(f"## {module.replace('.', ' ')}\n\n```text\n{done.stdout.strip()}\n```")
    return "\n\n".join(parts)


def errors_page() -> str:
    """The tree of errors."""

    def below(kind: type) -> list[type]:
        return [
            kind,
            *(
                found
                for child in kind.__subclasses__()
                for found in below(child)
                if child.__module__ == kind.__module__
            ),
        ]

    rows = [
        (f"`{kind.__name__}`", f"`{kind.__base__.__name__}`", _doc(kind))
        for kind in below(errors.MemserveError)
    ]
    return f"# Errors\n\n{table(['error', 'is a', 'means'], dict.fromkeys(rows))}"


def capabilities() -> str:
    """What each backend says of itself before it is opened."""
    able = {name: registry.find(name).capabilities for name in registry.names() if name != "toy"}
    names = [
        field.name
        for field in fields(memserve.Capabilities)
        if field.name not in {"backend", "engine", "model", "device"}
    ]
    rows = [(f"`{name}`", *(_short(getattr(able[backend], name)) for backend in able)) for name in names]
    text = (
        "At best, before a model is opened: what is not there is refused with `Unsupported` before any work."
    )
    return f"# Capabilities\n\n{text}\n\n{table(['', *able], rows)}"


def _short(value: object) -> object:
    return ", ".join(sorted(map(str, value))) if isinstance(value, frozenset) else value


def models() -> str:
    """The catalogue."""
    head, *lines = files.beside(catalogue.__file__, "data/catalogue.jsonl").splitlines()
    rows = []
    for line in lines:
        row = json.loads(line)
        size = memserve.model.load(row["id"]).parameters / 1e9
        stored = ", ".join(dict.fromkeys(found["method"] for found in row.get("checkpoints", ())))
        rows.append((row["id"], ", ".join(row.get("aliases", ())), f"{size:.3g}", stored, row["source"]))
    text = f"{json.loads(head)['note']} Read {json.loads(head)['date']}."
    names = ("model", "aliases", "parameters, 1e9", "checkpoints", "source")
    return f"# Catalogue\n\n{text}\n\n{table(names, rows)}"


def cards() -> str:
    """Every card by name."""
    rows = [
        (
            card.name,
            card.vendor,
            f"{card.memory / 2**30:.2f}",
            f"{card.bandwidth / 1e9:.0f}" if card.bandwidth else "-",
        )
        for card in hardware.cards()
    ]
    return f"# Cards\n\n{table(['card', 'maker', 'usable memory, GiB', 'bandwidth, GB/s'], rows)}"


def prices() -> str:
    """What tokens cost."""
    read = files.table(memserve.speed.prices.__file__, "data/prices.json")
    rows = [
        (r["model"], r["provider"], r["input"], r["output"], r.get("cached"), r["source"])
        for r in read["rows"]
    ]
    text = f"{read['note']} Read {read['date']}; {read['source']}."
    names = ("model", "provider", "input", "output", "cached input", "source")
    return f"# Prices\n\n{text}\n\n{table(names, rows)}"


PAGES = {
    "api": api, "cli": command_line, "errors": errors_page, "capabilities": capabilities, "catalogue": models,
    "cards": cards, "prices": prices,
}  # fmt: skip


def write(folder: Path) -> None:
    """Every page into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page() + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    write(Path(sys.argv[1]))
