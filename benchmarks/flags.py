"""Draws the flags of an engine's own parser from the source of a release, and compares them with flags.json.

    python benchmarks/flags.py vllm 0.33.0 FOLDER    # the unpacked release: pip download, unzip

The source is read, never run: `add_argument("--name", ...)`, fields of settings classes, and typer's options.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from memserve.engines.installed import named

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = {
    "vllm": ("vllm/engine/arg_utils.py", "vllm/entrypoints/**/cli_args.py", "vllm/entrypoints/cli/serve.py"),
    "sglang": ("sglang/srt/server_args.py", "sglang/srt/arg_groups/fields/*.py"),
    "lmdeploy": ("lmdeploy/cli/serve.py", "lmdeploy/cli/utils.py"),
    "llamacpp": ("llama_cpp/server/settings.py",),
    "hf": ("transformers/cli/serve.py", "transformers/commands/serving.py"),
}
CLASSES = re.compile("FrontendArgs$|ModelSettings$|ServerSettings$|ServeArguments$")
"""Classes whose every field is a flag."""
HELPERS = re.compile(r"ArgumentHelper\.(\w+)\(")
ANNOTATED = ("A", "Annotated")


Flag = tuple[str, tuple[str, ...]]
"""Its kind (switch, list or value), and its other spellings."""


def drawn(backend: str, folder: Path) -> dict[str, Flag]:
    """Every flag of a release without dashes."""
    found: dict[str, Flag] = {}
    trees = [
        ast.parse(path.read_text(encoding="utf-8"))
        for pattern in FILES[backend] for path in sorted(folder.glob(pattern))
    ]  # fmt: skip
    if backend == "lmdeploy":
        trees = list(lmdeploy(trees))
    kinds = {name: kind for tree in trees for name, kind in annotated(tree)}
    rows = [row for tree in trees for row in (*arguments(tree), *fields(tree))]
    for kind, *names in (*rows, *(row for path in folder.glob("**/arg.cpp") for row in in_cpp(path))):
        first, *rest = dict.fromkeys(name.lstrip("-").replace("_", "-") for name in names)
        found[first] = (kind or kinds.get(first, "value"), tuple(rest))
    return found


def in_cpp(path: Path) -> Iterator[tuple[str, ...]]:
    """The flags of llama.cpp's server: `common_arg({"-c", "--ctx-size"}, "N", ..., [](...) {...}`."""
    for part in re.split(r"add_opt\(\w+\(", path.read_text(encoding="utf-8"))[1:]:
        programs = re.search(r"set_examples\(\{(.*?)\}", part)
        if programs and not re.search("SERVER|COMMON", programs[1]):
            continue
        head, _, call = part.partition("[](")
        sets = re.findall(r"\{((?:\s*\"-[^\"]+\",?)+)\s*\}", head)
        spelled = [re.findall('"-+([^"]+)"', one) for one in sets]
        given = call.partition("{")[0].partition(",")[2]
        kind = "value" if given and "bool" not in given else "switch"
        yield from ((kind, *sorted(names, key=len, reverse=True)) for names in spelled)


def annotated(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The kind of every annotated field, by the flag that it would make."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id.replace("_", "-"), kind_of(ast.unparse(node.annotation))


def kind_of(annotation: str) -> str:
    """What a flag of that type takes."""
    bare = re.sub(r"^(A|Annotated|Optional)\[", "", re.sub(r"^(A|Annotated)\[", "", annotation))
    if bare.startswith("bool"):
        return "switch"
    return "list" if re.match(r"(list|List|tuple)\[", bare) else "value"


def lmdeploy(trees: list[ast.Module]) -> Iterator[ast.AST]:
    """Its server takes some of the helpers that all its commands share."""
    wanted: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if node.name in ("add_parser_api_server", "_add_parser_api_server"):
            wanted |= set(HELPERS.findall(ast.unparse(node)))
            yield node
    for node in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        if node.name == "ArgumentHelper":
            yield from (part for part in node.body if getattr(part, "name", "") in wanted)


def arguments(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """The kind (empty where the call does not say) and the spellings of each `add_argument`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            flags = [name for name in names if isinstance(name, str) and name.startswith("-")]
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            kind = "list" if said.get("nargs", "'?'") != "'?'" else "value" if "type" in said else ""
            kind = "switch" if re.search("store_|Boolean", said.get("action", "")) else kind
            yield from ((kind, *sorted(flags, key=len, reverse=True)),) if flags else ()


def fields(tree: ast.AST) -> Iterator[tuple[str, ...]]:
    """The same of flags that are fields of a class, or parameters of a typer command."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        parts = list(node.body)
        given = [arg for part in parts if isinstance(part, ast.FunctionDef) for arg in part.args.args]
        for part in (*parts, *given):
            name = getattr(part, "arg", None) or getattr(getattr(part, "target", None), "id", None)
            note = getattr(part, "annotation", None)
            if name and note and (CLASSES.search(node.name) or is_option(note)):
                yield (kind_of(ast.unparse(note)), name, *spellings(note))


def is_option(note: ast.expr) -> bool:
    """An annotation that makes a flag: SGLang's A[...] and typer's Annotated[...]."""
    if not (isinstance(note, ast.Subscript) and getattr(note.value, "id", "") in ANNOTATED):
        return False
    said = ast.unparse(note)
    return "no_cli=True" not in said and "typer.Argument" not in said


def spellings(note: ast.expr) -> tuple[str, ...]:
    """The strings of an annotation's `aliases=[...]` and `cli_name=`."""
    keywords = [word for node in ast.walk(note) if isinstance(node, ast.Call) for word in node.keywords]
    values = [word.value for word in keywords if word.arg in ("aliases", "cli_name")]
    strings = [part.value for value in values for part in ast.walk(value) if isinstance(part, ast.Constant)]
    return tuple(text for text in strings if isinstance(text, str))


def main(backend: str, version: str, folder: str) -> int:
    """Prints what flags.json lacks and what it has too much for that release; 1 where they differ."""
    table = named(backend).flags
    found = drawn(backend, Path(folder))
    held = {name for name in table.names if table.has(name, version)}
    names = {table.grammar.aliases.get(name, name) for name in found}
    for sign, some in (("+", names - held), ("-", held - names)):
        print(*(f"{sign} {name}" for name in sorted(some)), sep="\n")
    return int(names != held)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
