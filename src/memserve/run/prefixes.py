"""Cache marks at the prefix that requests share: one request writes it, the others wait and read it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from memserve.protocol import Raw, Request
from memserve.run.requests import Item, prompt_text, shared_prefix, text_of

CHARACTERS = 4
"""Of a token, at most as a rule: a prefix of so many is long enough."""
KEPT = 64
MARK = {"cache_control": {"type": "ephemeral"}}


class SharedPrefixes:
    """Marks requests in the order of asking, and holds back those that would write a prefix once more."""

    def __init__(self, least_tokens: int) -> None:
        self._least = least_tokens * CHARACTERS
        self._known: OrderedDict[str, None] = OrderedDict()
        self._writing: dict[bytes, int] = {}
        self._written: set[bytes] = set()

    def mark(self, items: Sequence[Item]) -> list[Item]:
        """The same items; those that share a long prefix with a neighbour are marked at its end."""
        texts = [_text(item.request) for item in items]
        found: list[Item] = []
        for start, end, cut in self._groups(texts):
            text = texts[start] or ""
            ends = self._end(text, cut)
            found += [self._marked(item, text[:ends]) if ends else item for item in items[start:end]]
        return found

    def free(self, item: Item) -> bool:
        """Whether it may be asked: its prefix is written, or it would be the one that writes it."""
        return item.prefix is None or item.prefix in self._written or item.prefix not in self._writing

    def begin(self, item: Item) -> None:
        """It is asked."""
        if item.prefix is not None and item.prefix not in self._written:
            self._writing.setdefault(item.prefix, item.index)

    def end(self, item: Item, *, answered: bool) -> None:
        """It came back."""
        if item.prefix is None:
            return
        if answered:
            self._written.add(item.prefix)
        if self._writing.get(item.prefix) == item.index or answered:
            self._writing.pop(item.prefix, None)

    def _groups(self, texts: Sequence[str | None]) -> list[tuple[int, int, int]]:
        """Neighbours that all share so many characters: (first, behind the last, characters)."""
        groups, start, cut = [], 0, 0
        for place in range(1, len(texts) + 1):
            common = self._common(texts[place - 1], texts[place]) if place < len(texts) else 0
            narrow = min(common, cut) if cut else common
            if common < self._least or 2 * narrow < max(cut, common):
                groups.append((start, place, cut))
                start, cut = place, 0
            else:
                cut = narrow
        return groups

    def _common(self, one: str | None, other: str | None) -> int:
        return shared_prefix([one, other], 0) if one and other else 0

    def _end(self, text: str, cut: int) -> int:
        """Where the mark goes: where it went before, or at the last white space that all share."""
        for known in self._known:
            if text.startswith(known) and 2 * len(known) > cut:
                self._known.move_to_end(known)
                return len(known)
        ends = max(text.rfind(sign, 0, cut) for sign in " \n\0") + 1 or cut
        if ends < self._least:
            return 0
        self._known[text[:ends]] = None
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return ends

    def _marked(self, item: Item, shared: str) -> Item:
        prompt = marked(item.request.prompt, len(shared))
        if prompt is None:
            return item
        name = blake2b(shared.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return replace(item, request=replace(item.request, prompt=prompt), prefix=name)


def _text(request: Request) -> str | None:
    """What can be marked, as it stands first to last; None for raw prompts, and where marks stand by hand."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Raw) or not prompt or not isinstance(prompt[0], Mapping):
        return None
    parts = (part for message in prompt for part in _parts(message))
    return None if any("cache_control" in part for part in parts) else str(prompt_text(prompt))


def _parts(message: Any) -> list[Any]:
    content = message.get("content")
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []


def marked(prompt: Any, ends: int) -> list[dict[str, Any]] | None:
    """The prompt with a mark behind so many characters; None where no text can carry it."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    before = 0
    for place, message in enumerate(messages):
        length = len(text_of(message))
        if before + length + 1 >= ends:
            parts = _split(message["content"], min(ends - before, length))
            return parts and [*messages[:place], {**message, "content": parts}, *messages[place + 1 :]]
        before += length + 1
    return None


def _split(content: Any, cut: int) -> list[dict[str, Any]] | None:
    if not isinstance(content, str) or cut <= 0:
        return None
    rest = [{"type": "text", "text": content[cut:]}] if content[cut:] else []
    return [{"type": "text", "text": content[:cut], **MARK}, *rest]
