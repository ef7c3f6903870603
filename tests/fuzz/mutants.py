# ruff: noqa: E501
"""Mutants of what a reader takes: one JSON value replaced, left out or moved; or bytes changed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

_HUGE, _DEEP = "@huge@", "@deep@"
HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, 1e308, 1e18, 10**400, -(2**63), 2**31, float("nan"), float("inf"), "", "\0",
    "a", "\ud800", "\x1b]0;x\x07", "9" * 400, "x" * 5000, "../../etc/passwd", "re:(.*)*(.*)*!", "${x}", "%s",
    "http://127.0.0.1:9/", "1e999", [], {}, [[]], [None], [0] * 300, {"": None}, {"a": {"a": {}}}, _HUGE, _DEEP,
)  # fmt: skip


def mutant(data: bytes, draw: random.Random) -> bytes:
    """The bytes with one JSON value in them changed; where there is none, with bytes changed."""
    starts = [at for at, sign in enumerate(data) if sign in b"{[" and (at == 0 or data[at - 1] in b"\n \0")]
    for start in sorted(draw.sample(starts, min(3, len(starts)))):
        try:
            value, length = json.JSONDecoder().raw_decode(data[start:].decode("utf-8", "strict"))
        except (ValueError, RecursionError):
            continue
        end = start + len(data[start:].decode()[:length].encode())
        try:
            said = json.dumps(_changed(value, draw), ensure_ascii=draw.random() < 0.8)
        except (ValueError, RecursionError):
            continue
        deep = draw.choice((100, 450, 950, 3000))
        said = said.replace(f'"{_HUGE}"', "9" * 5000).replace(f'"{_DEEP}"', "[" * deep + "]" * deep)
        if draw.random() < 0.03:
            said = said.replace("{", '{"id": 0, ', 1)
        return data[:start] + said.encode("utf-8", "surrogatepass") + data[end:]
    return _bytes(data, draw)


def _bytes(data: bytes, draw: random.Random) -> bytes:
    found = bytearray(data or b"\0")
    for _ in range(draw.choice((1, 1, 2, 8))):
        place, how = draw.randrange(len(found)), draw.random()
        if how < 0.5:
            found[place] ^= 1 << draw.randrange(8)
        elif how < 0.7:
            found[place:place] = found[place : place + draw.randrange(1, 40)]
        elif how < 0.9:
            del found[place : place + draw.randrange(1, 40)]
        else:
            found[place:place] = draw.choice(
                (b"\0", b"\xff\xff\xff\xff", b"\r\n", b"{" * 99, b'"', b"9" * 30)
            )
        found = found or bytearray(b"\0")
    return bytes(found)


def _changed(value: Any, draw: random.Random) -> Any:
    """The value with something in it replaced, left out, or moved elsewhere."""
    places = list(_places(value))
    where, key = draw.choice(places) if places else (None, None)
    if where is None:
        return draw.choice(HOSTILE)
    how = draw.random()
    if how < 0.6:
        where[key] = draw.choice(HOSTILE)
    elif how < 0.75:
        del where[key]
    elif how < 0.9:
        other, name = draw.choice(places)
        where[key] = json.loads(json.dumps(other[name]))
    elif isinstance(where, dict):
        where[draw.choice(("id", "type", "error", "model", "name", "x"))] = draw.choice(HOSTILE)
    else:
        where.append(draw.choice(HOSTILE))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])
