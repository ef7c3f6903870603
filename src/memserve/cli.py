"""What every `python -m memserve.*` shares: a parser and a voice that say what is wrong on one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from memserve.errors import InvalidInput

LONGEST = 300


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that a malformed call is answered on one line."""

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message, hint=f"{self.prog} --help lists the options")


def say(text: str) -> None:
    """One line of at most 300 characters on stderr, whatever the message holds."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    short = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    if sys.stderr is not None:
        sys.stderr.write(short.encode("utf-8", "replace").decode("utf-8") + "\n")
