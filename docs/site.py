"""Builds the site: the pages of docs/, those of the project's root, the examples, the generated reference.

python docs/site.py [FOLDER]     FOLDER: where the site goes, site/ by default
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import reference

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "site"
# Pages that lie elsewhere, because people look for them there, and their place on the site.
OTHERS = {
    "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md", "examples/README.md": "examples/index.md",
    "examples/longmemeval/README.md": "examples/longmemeval.md",
    "examples/locomo/README.md": "examples/locomo.md", "examples/plugin/README.md": "examples/plugin.md",
}  # fmt: skip
_LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def placed(text: str, here: str, there: str) -> str:
    """A page's text after it moved: links lead where they led, what is not on the site is only named."""

    def link(found: re.Match[str]) -> str:
        target = os.path.normpath(ROOT / Path(here).parent / found[2])
        on_site = OTHERS.get(os.path.relpath(target, ROOT)) or _docs(target)
        if not on_site:
            return found[1]
        return f"[{found[1]}]({os.path.relpath(on_site, Path(there).parent)}{found[3] or ''})"

    return _LINK.sub(link, _COMMENT.sub("", text))


def _docs(target: str) -> str | None:
    inside = os.path.relpath(target, ROOT / "docs")
    return (
        None
        if inside.startswith("..") or not (Path(target).is_file() or inside.startswith("reference"))
        else inside
    )


def assemble() -> Path:
    """Every page in one folder, with the site's settings beside it."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(ROOT / "docs", BUILD / "docs", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", BUILD)
    pages = {f"docs/{path.relative_to(ROOT / 'docs')}": str(path.relative_to(ROOT / "docs"))
             for path in (ROOT / "docs").rglob("*.md")}  # fmt: skip
    for here, there in {**pages, **OTHERS}.items():
        page = BUILD / "docs" / there
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(placed((ROOT / here).read_text(encoding="utf-8"), here, there), encoding="utf-8")
    reference.write(BUILD / "docs" / "reference")
    return BUILD


def planner(folder: Path) -> None:
    """The planner as a page of the site, where npm is here and can fetch its Python."""
    if shutil.which("npm"):
        subprocess.run([sys.executable, "-m", "memserve.plan", "--page", str(folder)], check=False)


def main(words: list[str]) -> int:
    """Assemble and build; a link that leads nowhere ends it."""
    folder = assemble()
    code = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=folder, check=False
    ).returncode
    if not code:
        there = Path(words[0]) if words else ROOT / "site"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(folder / "site", there)
        planner(there / "plan")
        print(f"{there}: {sum(1 for _ in there.rglob('*.html'))} pages")
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
