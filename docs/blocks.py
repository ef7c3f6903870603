"""The code blocks of README and docs, and how each is tested: run, run with a stand-in, or not run, and why.

python docs/blocks.py

A comment before a block says how it is run; without one it is run as it stands:

    <!-- before: CODE -->       Python that is run first, not shown on the page
    <!-- run: stand-in -->      the engine is replaced by the example plug-in
    <!-- run: exit 1 -->        the command's exit code
    <!-- run: slow -->          left out unless pytest --slow
    <!-- run: elsewhere; W -->  another test or .ci/run runs it: W
    <!-- not run: WHY -->
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
_COMMENT = re.compile(r"<!--\s*(before|run|not run|command):\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str
    before: str = ""
    how: str = ""
    why: str = ""

    @property
    def kind(self) -> str:
        """`run`, `stand-in`, `elsewhere` or `not run`."""
        if self.how.startswith("elsewhere"):
            return "elsewhere"
        return "not run" if self.why else "stand-in" if self.how == "stand-in" else "run"

    @property
    def exit(self) -> int:
        """The exit code that the page promises."""
        return int(self.how.split()[1]) if self.how.startswith("exit") else 0


def pages() -> list[Path]:
    """Every page that people read."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    return sorted(path for path in found if path.name != "CHANGELOG.md")


def blocks(path: Path) -> list[Block]:
    """The blocks of a page with the comments before them."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    for token in MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block":
            marks |= dict(_COMMENT.findall(token.content))
        elif token.type == "fence":
            found.append(_block(path, token, marks))
            marks = {}
        elif token.type == "inline":
            marks = {}
    return found


def _block(path: Path, token: Token, marks: dict[str, str]) -> Block:
    how = "elsewhere; .ci/run" if "command" in marks else marks.get("run", "")
    line = (token.map or [0])[0] + 1
    page = str(path.relative_to(ROOT))
    before, why = marks.get("before", ""), marks.get("not run", "")
    return Block(page, line, token.info.strip(), token.content, before, how, why)


def every() -> list[Block]:
    """Every block of every page."""
    return [block for path in pages() for block in blocks(path)]


def main() -> None:
    """Print the table and the shares."""
    found = every()
    print(f"{'page':40} {'blocks':>6} {'run':>5} {'stand-in':>9} {'elsewhere':>10} {'not run':>8}")
    for page in dict.fromkeys(block.page for block in found):
        kinds = Counter(block.kind for block in found if block.page == page)
        row = [kinds[kind] for kind in ("run", "stand-in", "elsewhere", "not run")]
        print(f"{page:40} {sum(row):6} {row[0]:5} {row[1]:9} {row[2]:10} {row[3]:8}")
    left = [block for block in found if block.kind == "not run"]
    print(
        f"\n{len(found) - len(left)} of {len(found)} are run ({1 - len(left) / len(found):.0%}); the others:"
    )
    for block in left:
        print(f"  {block.page}:{block.line}: {block.why}")


if __name__ == "__main__":
    main()
