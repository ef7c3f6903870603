"""Keys that cannot be printed."""

import re
from base64 import b64encode
from collections.abc import Iterable
from html import escape
from typing import NoReturn
from urllib.parse import quote

MASK = "***"
_SHORT = 8
_WORD = re.compile(r"(?!sk-)(?=.{1,15}$)[A-Za-z]+(?:[-_.][A-Za-z]+)*|\d{1,8}")


class Secret:
    """A key whose repr is a mask; `reveal` is for the header alone."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


class Mask:
    """Replaces every known key, in any of the forms in which a server may echo it."""

    def __init__(self, secrets: Iterable[str] = (), *, of_answers: bool = False) -> None:
        self.answers = self if of_answers else Mask(of_answers=True)
        """For what a model said: without the placeholders and passwords that an answer may hold by chance."""
        self._pattern: re.Pattern[str] | None = None
        self._known: set[str] = set()
        self._starts: set[str] = set()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        """Learn further keys, a fresh token for example."""
        if self.answers is not self:
            self.answers.add(*(secret for secret in secrets if not _is_guessable(secret)))
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        if forms - self._known:
            self._known |= forms
            ordered = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(_expression, ordered)), re.IGNORECASE)
            self._starts = {form[0].lower() for form in ordered}

    def __call__(self, text: str) -> str:
        """The text without any known key."""
        return self._pattern.sub(MASK, text) if self._pattern is not None else text

    def held(self, text: str) -> int:
        """Signs at the end of a text with which a key may begin."""
        if self._pattern is None:
            return 0
        text = text[-max(map(len, self._known)) :].lower()
        for place, sign in enumerate(text):
            if sign in self._starts and any(form.lower().startswith(text[place:]) for form in self._known):
                return len(text) - place
        return 0

    def __repr__(self) -> str:
        return f"Mask({len(self._known)} forms)"


class MaskedStream:
    """Masks a text that comes in pieces: what may be the beginning of a key waits for the next one."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._before = self._rest = ""

    def push(self, piece: str, *, last: bool = False) -> str:
        """What may be shown by now; the last piece lets go of what waited."""
        text = self._rest + piece
        end = len(text) - (0 if last else self._mask.held(text))
        text, self._rest = text[:end], text[end:]
        masked = self._mask(self._before + text)[len(self._before) :]
        self._before = text[-1:] or self._before
        return masked


def _is_guessable(secret: str) -> bool:
    """Whether it is a word, or a short number, that people write anyway: EMPTY, ollama, not-needed."""
    return bool(_WORD.fullmatch(secret))


def _forms(secret: str) -> set[str]:
    return {secret, b64encode(secret.encode()).decode()}


def _expression(form: str) -> str:
    exact = "".join(map(_written, form))
    return exact if len(form) >= _SHORT else rf"(?<![A-Za-z0-9]){exact}(?![A-Za-z0-9])"


def _written(sign: str) -> str:
    """A sign of a key in every way of writing it: as it is, in JSON, in an address, in HTML."""
    if sign.isalnum() and sign.isascii():
        return sign
    number = ord(sign)
    ways = {sign, f"\\{sign}", quote(sign, safe=""), f"\\u{number:04x}", f"\\x{number:02x}",
            escape(sign), f"&#{number};", f"&#x{number:x};"}  # fmt: skip
    return f"(?:{'|'.join(map(re.escape, sorted(ways, key=len, reverse=True)))})"
