"""What every verb of the command line shares: the parser, exit codes, and errors of one line."""

from __future__ import annotations

import argparse
import gc
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from memserve.errors import DoesNotFit, InvalidInput, MemserveError, UnknownName

DONE, FAILED, MALFORMED, INTERRUPTED = 0, 1, 2, 130
LONGEST = 300
MOST = 10**9
WIDTH = 100
_COUNT = re.compile(r"(\d{1,12})([kKmM]?)")
_UNITS = {"": 1, "k": 1024, "m": 1024**2}


class Help(argparse.HelpFormatter):
    """Writes `-o, --output FILE` instead of `-o FILE, --output FILE`, as Python does since 3.13."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Descriptions and epilogs keep their lines."""
        return "".join(indent + line for line in text.splitlines(keepends=True))


class Stored(argparse.Action):
    """What an option says; one of several words that is given twice means the words of both."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:  # fmt: skip
        several = option_string is not None and self.nargs in ("+", "*")
        before = getattr(namespace, self.dest, None) or () if several else ()
        setattr(namespace, self.dest, [*before, *values] if several else values)


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that a malformed call is answered on one line."""

    def __init__(self, verb: str = "", description: str | None = None, **more: Any) -> None:
        more.setdefault("prog", f"memserve {verb}".strip())
        super().__init__(description=description, allow_abbrev=False, formatter_class=Help, **more)
        self.register("action", None, Stored)

    def error(self, message: str) -> NoReturn:
        named = re.match(r"argument ([^\s/:]+)\S*: expected", message)
        action = self._option_string_actions.get(named[1]) if named else None
        takes = action and f"{message.partition(':')[0][9:]} takes {action.metavar}: {action.help}"
        hint = (takes or "").replace("%%", "%") or f"{self.prog} --help lists the options"
        raise InvalidInput(message, hint=hint)

    def read(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """The options of one call; a word that no option takes is refused with the nearest option."""
        found, extra = self.parse_known_args(words)
        if extra:
            self.refuse(extra)
        return found

    def refuse(self, extra: Sequence[str]) -> NoReturn:
        """Says which word is not known, and which is meant."""
        word = next((word for word in extra if word.startswith("-")), extra[0])
        name = word.partition("=")[0]
        if not name.startswith("-"):
            raise InvalidInput(f"one word too many: {word[:60]!r}", hint="quote a value that holds blanks")
        near = nearest(name, self.options())
        meant = f": did you mean {near[0]}?" if near else ""
        hint = f"{self.prog} --help lists the options"
        raise UnknownName(f"unknown option {name[:60]!r}{meant}", suggestions=near, hint=hint)

    def options(self) -> list[str]:
        """Every option of this parser and of the tables below it."""
        below = (action.choices or () for action in self._actions if action.nargs == argparse.PARSER)
        parsers = [self, *(parser for choices in below for parser in dict(choices).values())]
        return [name for parser in parsers for name in parser._option_string_actions]


def nearest(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three names that are spelled like a word."""
    from difflib import get_close_matches

    return tuple(get_close_matches(word, list(known), n=3))


def tell(line: str) -> None:
    """A line on stderr. A log that takes none, as on a full disk, stops nothing."""
    with suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def say(text: str) -> None:
    """One line of at most 300 characters on stderr, whatever the message holds."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    short = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    if sys.stderr is not None:
        tell(short.encode("utf-8", "replace").decode("utf-8"))


def _open_streams() -> None:
    """Streams that the caller closed lead nowhere, so that no file of ours gets their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def answer(task: Callable[[], int], *, failed: int = MALFORMED) -> int:
    """The exit code of one verb's call, with one line for what went wrong.

    0 done; 1 a well-formed call that cannot be met; 2 malformed. `failed` is for errors that are neither,
    as a server's: verbs that only read words count them as malformed.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    try:
        return task()
    except DoesNotFit as error:
        say(str(error))
        return FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (MemserveError, OSError, RecursionError, UnicodeError) as error:
        say(_words(error))
        return MALFORMED if isinstance(error, InvalidInput) else failed
    except Exception as error:
        if os.environ.get("MEMSERVE_DEBUG"):
            raise
        say(f"memserve failed ({type(error).__name__}: {error}): please report it with this command line")
        return MALFORMED


def short(main: Callable[[], int]) -> NoReturn:
    """Ends this process with the exit code of a call that makes too little garbage to look for."""
    gc.disable()
    code = main()
    gc.freeze()  # what ends now is not searched for garbage again
    sys.exit(code)


def count(text: str) -> int:
    """A whole number above 0; 32k is 32768."""
    found = _COUNT.fullmatch(text.strip())
    number = int(found[1]) * _UNITS[found[2].lower()] if found else 0
    if not 0 < number <= MOST:
        bounds = f"a whole number from 1 to {MOST:,} is needed, as 8192 or 32k"
        raise argparse.ArgumentTypeError(f"{bounds}, not {text[:40]!r}")
    return number


def target(text: str) -> str:
    """A file that can be written at the end: its folder is there."""
    from pathlib import Path  # it costs a plan milliseconds

    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"a file in a folder that is there is needed, not {text[:80]!r}")
    return text


def number(text: str) -> float:
    """A number that can be written down: neither nan nor infinite."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"a finite number is needed, not {text[:40]!r}")
    return found


def amount(text: str) -> float:
    """A number above 0; 200k and 2M are thousands and millions."""
    try:
        times = {"k": 1e3, "M": 1e6}.get(text[-1:], 1)
        found = number(text[:-1] if times > 1 else text) * times
    except argparse.ArgumentTypeError:
        found = 0.0
    if not 0 < found < MOST:
        raise argparse.ArgumentTypeError(f"a number above 0 is needed, not {text[:40]!r}")
    return found


def counted(many: int, noun: str) -> str:
    """`1 line`, `2 lines`."""
    return f"{many} {noun}{'' if many == 1 else 's'}"
