"""Thoughts that a server leaves in its text: what is known of a model by its name, and cutting them out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from memserve import files
from memserve.tokens.thinking import Family, ThoughtSplitter, families


@dataclass(frozen=True)
class Named:
    """How a model thinks, as far as its name tells: a row of thinking.json's `models`."""

    families: tuple[Family, ...]
    """Whose tags its text may begin with; of an unknown model any that no plain text begins with."""
    modes: frozenset[str] = frozenset({"on", "off", "budget"})
    switches: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """The template's variables, with what they are when on and off; a template ignores others' names."""
    opened: bool = False
    """The template writes the opening tag: the text begins inside the thought."""

    def variables(self, wanted: bool | int | None) -> dict[str, Any]:
        """What the template is given for a request's `thinking`."""
        if wanted is None:
            return {}
        return {name: on if wanted else off for name, (on, off) in self.switches.items()}


@cache
def named(model: str) -> Named:
    """What a model's name tells."""
    table = files.table(__file__, "data/thinking.json")
    known = {one.name: one for one in families()}
    row = next((row for row in table["models"] if re.search(row["pattern"], model, re.IGNORECASE)), None)
    spelled = {one["variable"]: (one["on"], one["off"]) for one in table["switches"]}
    if row is None:
        tagged = tuple(one for one in families() if one.tagged)
        booleans = {name: pair for name, pair in spelled.items() if pair == (True, False)}
        return Named(tagged, switches=booleans)
    own = (known[row["family"]],) if "family" in row else ()
    switches = {name: spelled[name] for name in row.get("switches", ())}
    return Named(own, frozenset(row["modes"]), switches, row.get("opened", False))


class Unparsed:
    """Cuts the thought out of one answer's text while it arrives."""

    def __init__(self, known: Named) -> None:
        self._known = known
        self._splitter: ThoughtSplitter | None = None
        self._plain = not known.families
        self._said = ""

    def push(self, piece: str, *, last: bool = False, cut_off: bool = False) -> tuple[str, str]:
        """New thought and new answer; a thought that never ends without being cut off is text."""
        self._said += piece
        if self._splitter is None and not self._plain:
            piece = self._begin(last=last)
        if self._plain:
            return "", piece
        if self._splitter is None:
            return "", ""
        thought, answer = self._splitter.push(piece, last=last)
        return thought, self._said if last and not cut_off and self._splitter.thinking else answer

    @property
    def unclosed(self) -> bool:
        """Whether a thought was begun and did not end."""
        return self._splitter is not None and self._splitter.thinking

    def _begin(self, *, last: bool) -> str:
        """The text so far, once it tells how it is to be read."""
        text, own = self._said.lstrip(), self._known.families
        family = next((one for one in own if text.startswith(one.open)), None)
        if family is None and not last and any(one.open.startswith(text) for one in own):
            return ""
        if family is not None or self._known.opened:
            self._splitter = ThoughtSplitter(family or own[0], inside=family is None)
        else:
            self._plain = True
        return self._said
