"""What is public is in an `__all__`, has a sentence, and is there for type checkers, too."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import types
import warnings
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from memserve import lazy, protocol
from memserve.lazy import warn_deprecated

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "memserve"
PAGES = "\n".join(
    path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
)
PRIVATE = {
    "conformance": "a pytest suite: its options are the promise",
    "adapters": "each module loads one harness, which knows it by its name",
}
_FOLDERS = {path.parent.name for path in SOURCE.glob("*/__init__.py")} - set(PRIVATE)
PACKAGES = ["memserve", *sorted(f"memserve.{folder}" for folder in _FOLDERS)]


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_exist_and_have_a_sentence(package: str) -> None:
    module = import_module(package)
    names = module.__all__
    assert names, f"{package} promises nothing: give it an __all__"
    assert len(set(names)) == len(names)
    for name in names:
        found = getattr(module, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            own = vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__
            assert own, f"{package}.{name} has no docstring"
            assert not own.startswith(f"{name}("), f"{package}.{name} has only a dataclass's own docstring"
    assert set(names) <= {*dir(module), "__version__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_there_for_checkers(package: str) -> None:
    """Bound in the file's own text, or under TYPE_CHECKING: a checker runs no `__getattr__`."""
    module = import_module(package)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    assert set(module.__all__) <= _bound(tree), package
    with pytest.raises(AttributeError, match="no attribute 'mispelt'"):
        _ = module.mispelt


def _bound(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {(found.asname or found.name).split(".")[0] for found in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_what_memserve_itself_names_is_on_a_page() -> None:
    import memserve

    assert [name for name in memserve.__all__ if name not in PAGES] == []


def test_no_package_hides_misspelt_names_from_checkers() -> None:
    """`def __getattr__` in a module makes every attribute an Any: it belongs under `if not TYPE_CHECKING`."""
    hiding = [
        str(path.relative_to(ROOT))
        for path in SOURCE.rglob("*.py")
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "__getattr__"
            for node in ast.parse(path.read_text(encoding="utf-8")).body
        )
    ]
    assert hiding == []


def test_every_setting_has_a_type_and_a_sentence() -> None:
    keys = set(protocol.Settings.__annotations__)
    assert keys == {f.name for f in fields(protocol.Request)} - {"prompt", "id"}
    tree = ast.parse((SOURCE / "protocol" / "clients.py").read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    told = {
        key.target.id
        for key, sentence in pairwise(body)
        if isinstance(key, ast.AnnAssign)
        and isinstance(key.target, ast.Name)
        and isinstance(sentence, ast.Expr)
    }
    assert told == keys


def test_what_is_deprecated_says_what_to_use_instead() -> None:
    def old() -> None:
        warn_deprecated("old()", instead="new()", removed_in="0.3")

    with pytest.warns(
        DeprecationWarning, match=r"old\(\) is deprecated and goes in memserve 0\.3: use new\(\)"
    ) as told:
        old()
    assert told[0].filename == __file__, "the warning points at the caller"


def test_a_renamed_name_works_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("memserve.model")
    package.new = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "memserve.model", package)
    getattr_, _ = lazy.attach("memserve.model", {}, {"old": ("new", "0.3")})
    with pytest.warns(DeprecationWarning, match=r"memserve\.model\.old .* use memserve\.model\.new"):
        assert getattr_("old") == 5
    with warnings.catch_warnings(), pytest.raises(AttributeError):
        getattr_("other")


def test_the_public_packages_load_without_each_other() -> None:
    """Every package can be the first that is imported: no circle between them."""
    code = "import importlib, sys; [importlib.import_module(sys.argv[1])]"
    for package in PACKAGES:
        subprocess.run([sys.executable, "-c", code, package], check=True, timeout=60)
