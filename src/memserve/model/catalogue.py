"""Models known by name: one line of data/catalogue.jsonl each, parsed only when it is asked for."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import InvalidInput

GROUPED = frozenset({"gptq", "awq", "w4a16", "w4a8"})
"""Methods whose tools make groups of 128 unless told otherwise, at 8 bits, too."""
_HEAD = re.compile(r'\{"id":"([^"]+)"(?:,"aliases":\[([^\]]*)\])?')
_VARIED = re.compile(r"[^a-z0-9./@]")


class Checkpoint(NamedTuple):
    """A quantized checkpoint that is known to exist, and who says so."""

    id: str
    method: str
    bits: float
    source: str
    group_size: int | None = None
    format: str = ""
    """`modelslim`: written for Ascend, and no other engine reads it. Empty: the usual one of its method."""
    block: int | None = None
    """FP8: rows and columns that share a scale; None: a scale for each row or for the whole matrix."""
    revision: str = ""
    """The commit that was looked at, where it is known."""


class Row(NamedTuple):
    """One model of the catalogue."""

    id: str
    aliases: tuple[str, ...]
    config: dict[str, Any]
    source: str
    checkpoints: tuple[Checkpoint, ...] = ()
    base: str | None = None
    """For a quantized checkpoint: the model it was made from."""
    pooling: str | None = None
    """For an embedder whose config.json reads like a generator's: how it pools."""
    scoring_tokens: tuple[str, ...] = ()
    """Of a reranker that is a decoder: the answers whose logits make a score."""
    tokenizer_code: str = ""
    """Who says that its tokenizer is code of the repository."""


def usual_group(method: str) -> int | None:
    """Inputs that share a scale in what the method's tools write unless told; None: the format's."""
    return 128 if method in GROUPED else None


def key(name: str) -> str:
    """A name without what people vary: case, dashes, underscores, spaces."""
    return _VARIED.sub("", name.lower())


@cache
def shipped() -> tuple[str, ...]:
    """The file's lines; `~` in a checkpoint's id is the row's own name without its owner."""
    lines = files.beside(__file__, "data/catalogue.jsonl").splitlines()
    return tuple(line.replace("~", line.split('"', 4)[3].rpartition("/")[2]) for line in lines)


DISTINCT = 6
"""Letters that a name has at least which is looked for within others: qwq and phi stand in too many."""
OWN = "catalogue.jsonl"
"""Rows that `memserve models --refresh` wrote among the user's settings; they stand in for those shipped."""


@cache
def _lines() -> tuple[str, ...]:
    lines, path = shipped()[1:], files.configured(OWN)
    if not files.lies(path):
        return lines
    rows = {line.split('"', 4)[3]: line for line in lines}
    return tuple({**rows, **{row["id"]: _line(row) for row in own(path)}}.values())


def own(path: str) -> list[dict[str, Any]]:
    """The rows of a catalogue that was written here."""
    try:
        rows = [json.loads(line) for line in files.text(path).splitlines()]
        if all(_HEAD.match(_line(row)) and row["source"] and "config" in row for row in rows):
            return rows
        why = "a row lacks its id, names, source or config"
    except (ValueError, KeyError, TypeError, OSError) as error:
        why = str(error)[:80]
    raise InvalidInput(f"{path}: {why}", hint="delete it, and write it anew: memserve models --refresh MODEL")


def _line(row: dict[str, Any]) -> str:
    head = {"id": row["id"], "aliases": row.get("aliases", [])}
    return json.dumps({**head, **row}, ensure_ascii=False, separators=(",", ":"))


@cache
def _head() -> dict[str, Any]:
    return dict(json.loads(shipped()[0]))


def dated() -> str:
    """When the rows were read, as the file's first line has it."""
    return str(_head()["date"])


def _source(words: str) -> str:
    """What the words of a row stand for."""
    written: dict[str, str] = _head()["sources"]
    return "; ".join(written.get(word, word) for word in words.split("; "))


@cache
def _index() -> dict[str, int]:
    """Keys of ids, then of aliases, then of ids without their owner, each with its line."""
    ids: dict[str, int] = {}
    bare: dict[str, int] = {}
    aliases: dict[str, int] = {}
    for number, line in enumerate(_lines()):
        head = _HEAD.match(line)
        if head is None:
            continue
        ids[key(head[1])] = number
        bare.setdefault(key(head[1].rpartition("/")[2]), number)
        for alias in re.findall(r'"([^"]+)"', head[2] or ""):
            aliases.setdefault(key(alias), number)
    return {**bare, **aliases, **ids}


@cache
def formats() -> dict[str, dict[str, Any]]:
    """How each quantization holds weights: the rows of data/formats.json."""
    found: dict[str, dict[str, Any]] = files.table(__file__, "data/formats.json")["formats"]
    return found


@cache
def names() -> tuple[str, ...]:
    """Every id and alias."""
    found: list[str] = []
    for line in _lines():
        head = _HEAD.match(line)
        if head:
            found += [head[1], *re.findall(r'"([^"]+)"', head[2] or "")]
    return tuple(found)


def find(name: str) -> Row | None:
    """The row of an id or alias; None where the catalogue has no such model."""
    wanted = key(name)  # Meta renamed its models on the hub; files made of them keep the old name
    number = _index().get(wanted, _index().get(wanted.replace("metallama3", "llama3")))
    return None if number is None else _row(number)


def within(name: str) -> str | None:
    """The longest known name that stands in another: what a fine-tune or a conversion was made from."""
    wanted = key(name.rpartition("/")[2])
    found = (known for known in _index() if len(known) >= DISTINCT and known in wanted)
    longest = max(found, key=len, default=None)
    return None if longest is None else _row(_index()[longest]).id


def rows() -> Iterator[Row]:
    """Every model, in the order of the file."""
    return map(_row, range(len(_lines())))


@cache
def _row(number: int) -> Row:
    raw = json.loads(_lines()[number])
    config = raw.get("config", {})
    if "as" in raw:
        config = {**_shipped_config(raw["as"]), **config}
    return Row(
        raw["id"], tuple(raw.get("aliases", ())), config, _source(raw["source"]),
        tuple(one for written in raw.get("checkpoints", ()) for one in _checkpoints(written)),
        raw.get("base"), raw.get("pooling"),
        tuple(raw.get("scoring_tokens", "").split()), _source(raw.get("tokenizer_code", "")),
    )  # fmt: skip


@cache
def _shipped_config(name: str) -> dict[str, Any]:
    """Of the row as it was shipped: one of the user's own may lack a field that only the other row needs."""
    raw = next(json.loads(line) for line in shipped()[1:] if line.startswith(f'{{"id":"{name}"'))
    return {**_shipped_config(raw["as"]), **raw.get("config", {})} if "as" in raw else dict(raw["config"])


def _checkpoints(written: dict[str, Any]) -> Iterator[Checkpoint]:
    """A repository's checkpoints: one of each method that it holds."""
    source = _source(written["source"])
    for method in written["method"].split():
        bits = written.get("bits", formats()[method]["bits"] if method in formats() else 4)
        yield Checkpoint(**{**written, "method": method, "bits": bits, "source": source})


def made_from(name: str) -> tuple[Row, Checkpoint] | None:
    """The row that lists a checkpoint which has no row of its own, named with or without its owner."""
    wanted, spelled = key(name), name.strip().lower()
    for number, line in enumerate(_lines()):
        if spelled in line.lower():
            for checkpoint in _row(number).checkpoints:
                bare = checkpoint.id if "/" in name else checkpoint.id.rpartition("/")[2]
                if key(bare) == wanted:
                    return _row(number), checkpoint
    return None


def checkpoints(model: str) -> tuple[Checkpoint, ...]:
    """Quantized checkpoints known for a model, by its id or alias."""
    row = find(model)
    return row.checkpoints if row else ()


def suggestions(name: str, most: int = 3) -> tuple[str, ...]:
    """The nearest names."""
    from difflib import get_close_matches

    by_key: dict[str, str] = {}
    for known in names():
        by_key.setdefault(key(known.rsplit("/", 1)[-1]), known)
    near = get_close_matches(key(name.rsplit("/", 1)[-1]), by_key, n=most, cutoff=0.6)
    return tuple(by_key[match] for match in near)
