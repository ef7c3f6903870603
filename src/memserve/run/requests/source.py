"""Where requests come from: a JSONL file, standard input or any iterable, read lazily."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import IO, Any

from memserve.errors import InvalidInput

Entry = tuple[int, "int | None", Any]
"""Place in the input, line number in the file, and the value, which may be an InvalidInput."""


def entries(requests: Any) -> Iterator[Entry]:
    """Every request of a path, of "-" (standard input) or of an iterable, with its place."""
    if isinstance(requests, str) and requests == "-":
        yield from _lines(sys.stdin.buffer)
    elif isinstance(requests, (str, Path)):
        with _opened(Path(requests)) as file:
            yield from _lines(file)
    else:
        for index, value in enumerate(requests):
            yield index, None, value


def check(requests: Any) -> None:
    """Refuse what cannot be read, before any work."""
    if isinstance(requests, (str, Path)):
        if requests == "-":
            return
        path = Path(requests)
        if path.is_file() or path.is_dir() or not path.exists():  # a pipe can be opened only once
            _opened(path).close()
    elif isinstance(requests, (Mapping, bytes)) or not isinstance(requests, Iterable):
        raise InvalidInput(f"requests are a path or an iterable of requests, not {type(requests).__name__}")


def count(requests: Any) -> int | None:
    """How many requests there are, where that can be known without asking for them."""
    if isinstance(requests, (str, Path)) and requests != "-":
        path = Path(requests)
        return _count_lines(path) if path.is_file() else None
    return len(requests) if isinstance(requests, Sized) and not isinstance(requests, str) else None


def _count_lines(path: Path) -> int:
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            last = block
    return lines + (not last.endswith(b"\n"))


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as broken:
        raise InvalidInput(f"cannot read the requests from {path}: {broken.strerror}") from broken


def _lines(file: IO[bytes]) -> Iterator[Entry]:
    index = 0
    for number, line in enumerate(file, start=1):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if text.strip():
            yield index, number, _parsed(text, number)
            index += 1


def _parsed(line: bytes, number: int) -> Any:
    try:
        value = json.loads(line, object_pairs_hook=_once)
    except InvalidInput as broken:
        return InvalidInput(f"line {number} {broken}")
    except ValueError as broken:  # UnicodeDecodeError and JSONDecodeError both are
        what = broken.msg if isinstance(broken, json.JSONDecodeError) else "not UTF-8"
        return InvalidInput(f"line {number} is not JSON: {what}")
    except RecursionError:
        return InvalidInput(f"line {number} is not JSON: nested too deeply")
    if isinstance(value, (dict, str, list)):
        return value
    return InvalidInput(f"line {number} is neither a request nor a bare prompt, but a {type(value).__name__}")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that says a thing twice means neither."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"says {twice[:40]!r} twice")
    return found
