"""Writes src/memserve/model/data/constructors.dat and defaults.jsonl from the transformers that is installed.

Keeps of each file of transformers (Apache-2.0) what decides the shape of a weight: the constructors of its
modules and configs, and what these use. Run it again when a new transformers brings new families:

    python benchmarks/constructors.py          # needs torch and transformers
"""

from __future__ import annotations

import ast
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import config_defaults

DATA = Path(__file__).parent.parent / "src" / "memserve" / "model" / "data"
ROOTS = {
    "config": {"__post_init__", "__init__"},
    "model": {"__init__", "__new__", "from_config", "_from_config", "make_preprocessor_external"},
}
NEVER = {
    "forward", "_init_weights", "post_init", "get_input_embeddings", "set_input_embeddings", "generate",
    "get_output_embeddings", "set_output_embeddings", "prepare_inputs_for_generation", "extra_repr",
    "__call__", "reset_parameters", "to_dict", "from_dict", "from_pretrained", "save_pretrained",
}  # fmt: skip
DROPPED_FIELDS = ("base_model_", "keys_to_ignore", "_no_split", "_supports", "supports", "_keys", "_skip",
                  "_can", "_keep", "main_input", "input_mod", "_tp", "_pp", "_ep", "_checkpoint", "_input",
                  "_output", "_auto", "_compat", "all_", "_supported")  # fmt: skip
DEFAULT_AUTOS = {"AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText",
                 "AutoModelForMaskedLM", "AutoBackbone"}  # fmt: skip
EXTRA_FILES = ("vision.py", "perceiver.py", "quant_modules.py")


class Clean(ast.NodeTransformer):
    """Drops what no shape depends on: annotations, decorators, docstrings, logging, inner imports."""

    def __init__(self) -> None:
        self.imports: dict[str, tuple[str, str]] = {}

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        for alias in node.names:
            self.imports[alias.asname or alias.name] = ("." * node.level + (node.module or ""), alias.name)
        return ast.Pass()

    def visit_Import(self, node: ast.Import) -> ast.stmt:
        for alias in node.names:
            local = (alias.asname or alias.name).split(".")[0]
            self.imports[local] = (alias.name, local)
        return ast.Pass()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.stmt:
        self.generic_visit(node)
        kept = ("property", "staticmethod", "classmethod")
        words = [(ast.unparse(decorator), decorator) for decorator in node.decorator_list]
        node.decorator_list = [d for text, d in words if text in kept or text.endswith(".setter")]
        node.returns = None
        node.body = without_docstring(node.body)
        arguments = node.args
        for argument in (*arguments.args, *arguments.kwonlyargs, *arguments.posonlyargs, arguments.vararg,
                         arguments.kwarg):  # fmt: skip
            if argument:
                argument.annotation = None
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.stmt:
        self.generic_visit(node)
        node.decorator_list, node.keywords = [], []
        node.body = without_docstring(node.body)
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        self.generic_visit(node)
        noise = ("logger.", "warnings.warn", "self.post_init()")
        return ast.Pass() if ast.unparse(node).startswith(noise) else node


def without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        body = body[1:]
    return body or [ast.Pass()]


def names_in(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


class Source:
    """One file of transformers: its top-level statements and imports."""

    def __init__(self, path: Path) -> None:
        self.is_config = path.name.startswith("configuration")
        self.statements: list[tuple[tuple[str, ...], ast.stmt]] = []
        self.imports: dict[str, tuple[str, str]] = {}
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            self._add(statement)
        self.classes = {names[0]: node for names, node in self.statements if isinstance(node, ast.ClassDef)}
        self.methods: dict[str, list[ast.FunctionDef]] = {}
        for node in self.classes.values():
            for item in node.body:
                if isinstance(item, ast.FunctionDef):
                    self.methods.setdefault(item.name, []).append(item)

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            self.statements.append(((node.name,), node))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            self.statements.append((tuple(sorted(set().union(*map(names_in, targets)))), node))
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                self.imports[alias.asname or alias.name] = (
                    "." * node.level + (node.module or ""),
                    alias.name,
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                local = (alias.asname or alias.name).split(".")[0]
                self.imports[local] = (alias.name, local)
        elif isinstance(node, (ast.If, ast.Try)):
            for inner in (*node.body, *node.orelse):
                self._add(inner)

    def reached(self) -> set[str]:
        """Methods that a constructor may call, and in configs every property."""
        todo = set(ROOTS["config" if self.is_config else "model"])
        if self.is_config:
            todo |= {
                name
                for name, found in self.methods.items()
                if any(ast.unparse(d) == "property" for method in found for d in method.decorator_list)
            }
        reached: set[str] = set()
        while todo:
            name = todo.pop()
            if name in reached or name in NEVER:
                continue
            reached.add(name)
            for method in self.methods.get(name, ()):
                todo |= {a.attr for a in ast.walk(method) if isinstance(a, ast.Attribute)} & set(self.methods)
        return reached


def reduced_class(node: ast.ClassDef, source: Source, reached: set[str]) -> ast.ClassDef:
    """A class with its constructor and what that calls."""
    text = ast.unparse(node)
    if (
        "RotaryEmbedding" in node.name
        and "inv_freq" in text
        and not re.search(r"nn\.(Linear|Parameter|Emb)", text)
    ):
        body = ast.parse("def __init__(self, *a, **k):\n    super().__init__()").body
        bases: list[ast.expr] = [ast.parse("nn.Module", mode="eval").body]
        return ast.ClassDef(
            name=node.name, bases=bases, keywords=[], body=body, decorator_list=[], type_params=[]
        )
    kept: list[ast.stmt] = []
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            setter = any("setter" in ast.unparse(decorator) for decorator in item.decorator_list)
            kept += [item] if item.name in reached and (source.is_config or not setter) else []
        elif isinstance(item, (ast.Assign, ast.AnnAssign)):
            kept += config_field(item) if source.is_config else model_field(item)
    return ast.ClassDef(
        name=node.name,
        bases=node.bases,
        keywords=[],
        body=kept or [ast.Pass()],
        decorator_list=[],
        type_params=[],
    )


def field_name(item: ast.Assign | ast.AnnAssign) -> str:
    target = item.targets[0] if isinstance(item, ast.Assign) else item.target
    return target.id if isinstance(target, ast.Name) else ""


def config_field(item: ast.Assign | ast.AnnAssign) -> list[ast.stmt]:
    """A field is annotated F, a class variable V; a validated field keeps its default alone."""
    if field_name(item).startswith(("base_model_", "keys_to_ignore")):
        return []
    if isinstance(item, ast.AnnAssign):
        item.annotation = ast.Name(id="V" if "ClassVar" in ast.unparse(item.annotation) else "F")
        item.value = item.value or ast.Constant(value=None)
        if isinstance(item.value, ast.Call) and ast.unparse(item.value.func) != "field":
            item.value = next((k.value for k in item.value.keywords if k.arg == "default"), item.value)
    return [item]


def model_field(item: ast.Assign | ast.AnnAssign) -> list[ast.stmt]:
    """Class attributes that constructors read; `config: XConfig` becomes `config_class = XConfig`."""
    name = field_name(item)
    if name == "config":
        words = (
            re.findall(r"\w+Config\b", ast.unparse(item.annotation))
            if isinstance(item, ast.AnnAssign)
            else []
        )
        return ast.parse(f"config_class = {words[0]}").body if len(words) == 1 else []
    if name.startswith(DROPPED_FIELDS) and name not in ("base_model_prefix", "_tied_weights_keys"):
        return []
    if isinstance(item, ast.AnnAssign):
        if item.value is None:
            return []
        return [ast.Assign(targets=[item.target], value=item.value, lineno=0)]
    return [item]


def reduce_file(path: Path) -> dict[str, Any]:
    """A file's statements as [names, uses, code], and the names it takes from elsewhere."""
    source = Source(path)
    reached = source.reached()
    rows = []
    cleaner = Clean()
    for names, node in source.statements:
        if isinstance(node, ast.ClassDef):
            if source.classes[node.name] is not node:
                continue
            node = reduced_class(node, source, reached)
        code = cleaner.visit(node)
        if isinstance(code, ast.AnnAssign):
            if code.value is None:
                continue
            code = ast.Assign(targets=[code.target], value=code.value, lineno=0)
        rows.append((names, names_in(code), ast.unparse(ast.fix_missing_locations(code))))
    return linked(rows, {**cleaner.imports, **source.imports})


def linked(rows: list[tuple[tuple[str, ...], set[str], str]], imports: dict[str, Any]) -> dict[str, Any]:
    """Only what some class needs."""
    home = {name: index for index, (names, _, _) in enumerate(rows) for name in names}
    todo = [
        index
        for index, (_, _, code) in enumerate(rows)
        if re.match(r"class \w+(?<!Loss)(?<!Matcher)\b", code)
    ]
    needed: set[int] = set()
    while todo:
        index = todo.pop()
        if index not in needed:
            needed.add(index)
            todo += [home[name] for name in rows[index][1] if name in home]
    used = set().union(*(rows[index][1] for index in needed)) if needed else set()
    return {
        "rows": [
            [list(rows[i][0]), sorted(n for n in rows[i][1] if n in home and n not in rows[i][0]), rows[i][2]]
            for i in sorted(needed)
        ],
        "imports": {
            name: where for name, where in sorted(imports.items()) if name in used and name not in home
        },
    }


def home_of(where: str, folder: str, files: dict[str, dict[str, Any]], name: str) -> str:
    """The reduced file a relative import means; empty where it is none of ours."""
    for prefix in ("...models.", "transformers.models."):
        if where.startswith(prefix):
            where = ".." + where[len(prefix) :]
    if where.startswith("...") or not where.startswith("."):
        return ""
    found = where[2:] if where.startswith("..") else f"{folder}.{where[1:]}"
    if found.startswith("auto"):
        return "auto"
    if found in files:
        return found
    inside = (key for key in files if key.startswith(f"{found}."))
    return next((key for key in inside if any(name in row[0] for row in files[key]["rows"])), "")


def collect(models: Path) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for folder in sorted(models.iterdir()):
        if not folder.is_dir() or folder.name in ("auto", "deprecated", "__pycache__"):
            continue
        paths = [*folder.glob("configuration_*.py"), *folder.glob("modeling_*.py"),
                 *(folder / name for name in EXTRA_FILES if (folder / name).exists())]  # fmt: skip
        for path in sorted(paths):
            files[f"{folder.name}.{path.stem}"] = reduce_file(path)
    for key, file in files.items():
        resolved = {
            name: [home_of(where, key.split(".")[0], files, original), original]
            for name, (where, original) in file["imports"].items()
        }
        file["imports"] = resolved
    return files


def auto_tables(path: Path) -> dict[str, str]:
    """Which table each AutoModel class reads."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for item in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(item, ast.Assign) and field_name(item) == "_model_mapping":
                found[node.name.lstrip("_")] = ast.unparse(item.value)  # type: ignore[attr-defined]
    return {auto: table for auto, table in found.items() if table.endswith("_MAPPING")}


def tables(files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Which class a model type means, and where it is."""
    from transformers.models.auto import configuration_auto, modeling_auto

    homes = {name: key for key, file in files.items() for row in file["rows"] for name in row[0]
             if row[2].startswith("class ")}  # fmt: skip
    used = {
        original for file in files.values() for home, original in file["imports"].values() if home == "auto"
    }
    found = {}
    for auto, prefix in auto_tables(Path(modeling_auto.__file__)).items():
        if auto in used | DEFAULT_AUTOS:
            table = getattr(modeling_auto, f"{prefix}_NAMES")
            found[auto] = {kind: name if isinstance(name, str) else name[0] for kind, name in table.items()}
    configs = dict(configuration_auto.CONFIG_MAPPING_NAMES)
    return {
        "autos": found,
        "configs": {kind: [homes.get(name, ""), name] for kind, name in configs.items()},
        "types": {name: kind for kind, name in configs.items()},
        "elsewhere": {
            name: homes[name]
            for table in found.values()
            for kind, name in table.items()
            if name in homes
            and homes[name].split(".")[0] != homes.get(configs.get(kind, ""), "").split(".")[0]
        },
    }


def write_archive(path: Path, files: dict[str, dict[str, Any]], about: dict[str, Any]) -> None:
    """A length, a compressed index, then one compressed block for each folder."""
    folders: dict[str, dict[str, Any]] = {}
    for key, file in files.items():
        folders.setdefault(key.split(".")[0], {})[key] = file
    blocks, places, offset = [], {}, 0
    for folder, inside in folders.items():
        block = zlib.compress(json.dumps(inside, separators=(",", ":")).encode(), 9)
        places[folder] = [offset, len(block)]
        blocks.append(block)
        offset += len(block)
    index = zlib.compress(json.dumps({**about, "places": places}, separators=(",", ":")).encode(), 9)
    path.write_bytes(struct.pack("<I", len(index)) + index + b"".join(blocks))


def main() -> None:
    import transformers

    files = collect(Path(transformers.__file__).parent / "models")
    about = {"transformers": transformers.__version__, **tables(files)}
    write_archive(DATA / "constructors.dat", files, about)
    rows = config_defaults.rows()
    lines = (json.dumps({"type": kind, **rows[kind]}, separators=(",", ":")) for kind in sorted(rows))
    (DATA / "defaults.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"transformers {transformers.__version__}: {len(files)} files, {len(rows)} config classes")


if __name__ == "__main__":
    main()
