"""Draws docs/images/plan.svg, the README's picture, from what the planner really prints on a terminal.

python docs/picture.py
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from html import unescape
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("images") / "plan.svg"
COMMAND = ("llama-70b", "--gpus", "4xV100")
WIDTH, HEIGHT = 124, 50
ALONE = """
from memserve import registry
everybody = registry.metadata_folders
registry.metadata_folders = lambda: (one for one in everybody() if "/memserve-" in one)
from memserve.plan.__main__ import main
raise SystemExit(main())
"""
"""The planner without plug-ins: what is installed beside it here changes no picture."""


def on_a_terminal(words: list[str]) -> str:
    """What a command prints when it believes that a person looks on."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    world = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": str(WIDTH)}
    child = subprocess.Popen(words, stdout=theirs, env=world)
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += (piece := os.read(ours, 65536))
        except OSError:  # Linux says so when the other end has closed
            break
        if not piece:
            break
    if child.wait(timeout=60):
        raise SystemExit(f"{words} failed")
    return printed.decode().replace("\r\n", "\n")


def drawn() -> str:
    """The terminal's page with its colours, as SVG."""
    printed = on_a_terminal([sys.executable, "-c", ALONE, *COMMAND])
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(printed))
    return console.export_svg(title=f"memserve plan {' '.join(COMMAND)}")


def words(svg: str) -> list[str]:
    """What the picture says, without fonts, colours and names that another release of rich would change."""
    texts = re.findall(r"<text[^>]*>(.*?)</text>", svg, re.DOTALL)
    said = (unescape(text).replace("\xa0", " ").strip() for text in texts)
    return [words for words in said if words]


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
