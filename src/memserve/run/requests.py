"""What is to be asked: requests read lazily from a file or any iterable, named, put in order."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

from memserve import files
from memserve.client.settings import check as check_setting
from memserve.errors import InvalidInput
from memserve.protocol import Raw, Request

Identity = str | int
SETTINGS: dict[str, Any] = {
    f.name: (f.default_factory() if f.default_factory is not MISSING else f.default)
    for f in fields(Request)
    if f.name not in {"prompt", "id"}
}
"""Every setting of a request with its default, which means: not chosen by the caller."""
_values = attrgetter(*SETTINGS)
_DEFAULTS = tuple(SETTINGS.values())
KEYS = frozenset({"id", "prompt", "messages", "custom_id"})
"""What a request has and a message has not."""
KNOWN = frozenset({"id", "prompt", "messages", "meta", *SETTINGS})


@dataclass(frozen=True, slots=True)
class Item:
    """A request on its way through a run."""

    index: int
    """Its place in the input, from 0."""
    id: Identity
    request: Request
    digest: bytes
    """16 bytes of the prompt and every chosen setting: the same digest means the same request."""
    named: bool = True
    """False: the id was made from the digest."""
    meta: Any = None
    """Whatever the caller wants to find again beside the answer."""
    prefix: bytes | None = None
    """The name of the marked prefix that it shares with others."""

    @property
    def characters(self) -> int:
        """The size of the prompt, roughly: what look-ahead and token estimates count."""
        return size(self.request.prompt)


def chosen(request: Request) -> dict[str, Any]:
    """The settings that the caller chose, by name."""
    values = _values(request)
    if values == _DEFAULTS:
        return {}
    return {name: value for name, value in zip(SETTINGS, values, strict=True) if value != SETTINGS[name]}


def digest(request: Request) -> bytes:
    """The stable fingerprint of what is asked, whatever its id."""
    prompt = request.prompt
    if isinstance(prompt, str):
        kind, text = b"text\0", prompt
    elif isinstance(prompt, Raw):
        kind, text = b"raw\0", prompt.text
    else:
        kind, text = b"json\0", _canonical(prompt)
    state = blake2b(kind, digest_size=16)
    state.update(text.encode("utf-8", "surrogatepass"))
    settings = chosen(request)
    if settings:
        state.update(b"\0" + _canonical(settings).encode("utf-8", "surrogatepass"))
    return state.digest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def size(prompt: Any) -> int:
    """Characters of a prompt; a token id counts as four."""
    if isinstance(prompt, str):
        return len(prompt)
    if isinstance(prompt, Raw):
        return len(prompt.text)
    return sum(4 if isinstance(part, int) else len(text_of(part)) for part in prompt)


def text_of(message: Mapping[str, Any]) -> str:
    """A message as one string, good enough to compare and to measure."""
    content = message.get("content")
    return content if isinstance(content, str) else _canonical(message)


def read_item(value: Any, index: int, defaults: Mapping[str, Any]) -> Item:
    """An item from a Request, a mapping or a bare prompt; raises InvalidInput with the reason."""
    name: Any = None
    meta: Any = None
    if isinstance(value, Request):
        settings, prompt, name = checked(chosen(value)), value.prompt, value.id
    elif isinstance(value, Mapping):
        settings, prompt, name, meta = _from_mapping(value)
    else:
        settings, prompt = {}, value
    if "extra" in settings:
        settings["extra"] = {**defaults.get("extra", {}), **settings["extra"]}
    request = Request(prompt=_prompt(prompt), **{**defaults, **settings})
    return _identified(request, index, name, meta)


def _identified(request: Request, index: int, name: Any, meta: Any) -> Item:
    try:
        mark = digest(request)
        if meta is not None:
            json.dumps(meta)
    except (TypeError, ValueError) as broken:
        raise InvalidInput(f"the request cannot be written as JSON: {broken}") from broken
    if name is None:
        return Item(index, mark.hex(), request, mark, named=False, meta=meta)
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise InvalidInput(f"an id is a string or an integer, not {type(name).__name__}")
    return Item(index, name, request, mark, meta=meta)


def name_in(value: Any) -> Identity | None:
    """The id of an entry that may be malformed otherwise."""
    own = value.get("id", value.get("custom_id")) if isinstance(value, Mapping) else None
    name = getattr(value, "id", own)
    return name if isinstance(name, (str, int)) and not isinstance(name, bool) else None


def _from_mapping(value: Mapping[str, Any]) -> tuple[dict[str, Any], Any, Any, Any]:
    unknown = [str(key) for key in value if key not in KNOWN]
    if unknown:
        near = get_close_matches(unknown[0][:60], KNOWN, n=1)
        meant = f": did you mean {near[0]}?" if near else ""
        raise InvalidInput(
            f"unknown key {unknown[0][:60]!r} in a request{meant}",
            hint='known: prompt, id, max_tokens, temperature, ...; put your own data under "meta"',
        )
    if ("prompt" in value) == ("messages" in value):
        raise InvalidInput('a request needs exactly one of "prompt" and "messages"')
    settings = checked({name: chosen for name, chosen in value.items() if name in SETTINGS})
    prompt = value["prompt"] if "prompt" in value else value["messages"]
    return settings, prompt, value.get("id"), value.get("meta")


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a Request holds them; raises InvalidInput for one that is malformed."""
    return {name: check_setting(name, value) for name, value in settings.items() if value is not None}


def _prompt(prompt: Any) -> Any:
    if isinstance(prompt, (str, Raw)):
        return prompt
    if isinstance(prompt, Mapping) and set(prompt) == {"raw"} and isinstance(prompt["raw"], str):
        return Raw(prompt["raw"])
    if isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray)) and prompt:
        kinds = {_kind(part) for part in prompt}
        if len(kinds) == 1 and "other" not in kinds:
            return prompt
    raise InvalidInput(
        f"a prompt is a string, a list of messages, a list of token ids or Raw, not {_shown(prompt)}"
    )


def _kind(part: Any) -> str:
    if isinstance(part, Mapping):
        return "message"
    return "token" if isinstance(part, int) and not isinstance(part, bool) else "other"


def _shown(prompt: Any) -> str:
    return "an empty list" if prompt in ([], ()) else type(prompt).__name__


BLOCK = 512
"""Characters that must agree before it pays to bring two requests together: eight KV blocks or so."""

Keyed = tuple["str | tuple[int, ...]", "Item"]


def arrange(items: Iterable[Item]) -> list[Item]:
    """The same items, grouped by their shared prefixes at every depth; groups by first appearance."""
    return [item for _, item in _arranged([(prompt_text(item.request.prompt), item) for item in items], 0)]


def prompt_text(prompt: Any) -> Any:
    """What an engine sees first to last, as something that can be sliced and compared."""
    if isinstance(prompt, (str, Raw)):
        return prompt if isinstance(prompt, str) else prompt.text
    if isinstance(prompt[0], int):
        return tuple(prompt)
    return "\0".join(text_of(message) for message in prompt)


def _arranged(keyed: Sequence[Keyed], depth: int) -> Iterator[Keyed]:
    groups: dict[Any, list[Keyed]] = {}
    for place, pair in enumerate(keyed):
        block = pair[0][depth : depth + BLOCK]
        groups.setdefault(block if len(block) == BLOCK else place, []).append(pair)
    for group in groups.values():
        if len(group) > 2:
            yield from _arranged(group, shared_prefix([words for words, _ in group], depth + BLOCK))
        else:
            yield from group


def shared_prefix(texts: Sequence[Any], known: int) -> int:
    """The length of the prefix that all texts share, of which `known` are known to agree."""
    low, high = min(texts), max(texts)  # whatever these two share, all share
    step = BLOCK
    while low[known : known + step] == high[known : known + step] and known < len(low):
        known += step
        step *= 2
    while step > 1:
        step //= 2
        if low[known : known + step] == high[known : known + step]:
            known += step
    return min(known, len(low))


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


_BEGUN = re.compile(rb"(?m)^(\xef\xbb\xbf)?\s*[{\[\"]")
_UTF16, _JQ = ("UTF-16, not UTF-8", "iconv -f UTF-16 -t UTF-8"), "jq -c"
_NOT_LINES = {
    b"\x1f\x8b": ("compressed with gzip", "zcat"), b"BZh": ("compressed with bzip2", "bzcat"),
    b"\xfd7zXZ": ("compressed with xz", "xzcat"), b"(\xb5/\xfd": ("compressed with zstd", "zstdcat"),
    b"PK\x03\x04": ("a zip archive", "unzip -p"), b"\xff\xfe": _UTF16, b"\xfe\xff": _UTF16,
    **dict.fromkeys((b"[\n", b"[\r\n"), ("one JSON list, not a request a line", f"{_JQ} '.[]'")),
    **dict.fromkeys((b"{\n", b"{\r\n"), ("JSON over several lines, not a request a line", f"{_JQ} ."),
    ),
}  # fmt: skip
"""How files begin that hold no requests line by line, and what makes such lines of them."""


def check_requests(requests: Any) -> None:
    """Refuse what cannot be read, before any work."""
    if isinstance(requests, (str, Path)):
        if requests == "-":
            return
        path = Path(requests)
        if path.is_file() or path.is_dir() or not path.exists():  # a pipe can be opened only once
            with _opened(path) as file:
                begins = file.read(1 << 12)
                for magic, (what, tool) in _NOT_LINES.items():
                    if begins.startswith(magic):
                        raise InvalidInput(f"{path} is {what}", hint=f"{tool} {path} | memserve run - ...")
                if begins.strip() and not _BEGUN.search(begins):
                    raise InvalidInput(
                        f"{path} is no JSON", hint=f"lines of text: jq -R . {path} | memserve run -"
                    )
    elif isinstance(requests, (Mapping, bytes)) or not isinstance(requests, Iterable):
        raise InvalidInput(f"requests are a path or an iterable of requests, not {type(requests).__name__}")


def count_requests(requests: Any) -> int | None:
    """How many requests there are, where that can be known without asking for them."""
    if isinstance(requests, (str, Path)) and requests != "-":
        path = Path(requests)
        return _count_lines(path) if path.is_file() else None
    return len(requests) if isinstance(requests, Sized) and not isinstance(requests, str) else None


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)


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


class Unreadable(InvalidInput):
    """A line that is no JSON, with the id that it names all the same."""

    def __init__(self, message: str, name: Identity | None) -> None:
        super().__init__(message)
        self.id = name


def _own_name(line: bytes) -> Identity | None:
    """The id in a line that says something else twice; of two ids neither is meant."""
    try:
        pairs = json.loads(line, object_pairs_hook=tuple)
    except (ValueError, RecursionError):
        return None
    ids = [pair[1] for pair in pairs if pair[0] in ("id", "custom_id")] if isinstance(pairs, tuple) else []
    return name_in({"id": ids[0]}) if len(ids) == 1 else None


def _parsed(line: bytes, number: int) -> Any:
    try:
        value = files.parsed(line)
    except ValueError as broken:
        what = "not UTF-8" if isinstance(broken, UnicodeError) else getattr(broken, "msg", broken)
        return Unreadable(f"line {number} is not JSON: {what}", _own_name(line))
    if isinstance(value, list) and value and isinstance(value[0], dict) and KEYS & value[0].keys():
        hint = "a request a line: jq -c '.[]' FILE"
        return InvalidInput(f"line {number} is a list of requests, not one", hint=hint)
    if isinstance(value, (dict, str, list)):
        return value
    kind = "null" if value is None else "true or false" if isinstance(value, bool) else "a number"
    return InvalidInput(f"line {number} is neither a request nor a bare prompt, but {kind}")
