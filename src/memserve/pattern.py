"""Regular expressions of somebody else, matched in bounded time: every place at once, none tried twice."""

import re
from collections.abc import Callable

LONGEST = 500
WORK = 2_000_000
"""Characters that all expressions of one list may look at; after that they match nothing."""
_SIMPLE = re.compile(
    r"(?:\\[.\-_/dwsDWS^$]|\[(?:[^\]\\[]|\\[\w.-])+\]|\((?!\?)|\(\?:|\)(?![*+?{])|[^\\\[(){*+?]|(?<!^)[*+](?![*+?{]))*"
)
"""No repeated group, no count, nothing beyond classes and choices."""
_CATEGORIES = {
    "d": str.isdigit, "w": lambda sign: sign.isalnum() or sign == "_", "s": str.isspace,
}  # fmt: skip

Places = set[int]
Step = Callable[[str, Places], Places]


class Budget:
    """Shared by the expressions of one list."""

    def __init__(self) -> None:
        self.left = WORK

    def spend(self, places: Places) -> bool:
        """Whether that many more characters may be looked at."""
        self.left -= len(places) + 1
        return self.left > 0


def matcher(text: str, budget: Budget) -> Callable[[str], bool] | None:
    """Whether a name begins as the expression says; None for one that cannot be read."""
    if len(text) > LONGEST:
        return None
    bare = text.removesuffix(".*")
    if _SIMPLE.fullmatch(bare) and bare.count("*") + bare.count("+") <= 1 and bare.count("|") <= 3:
        try:
            quick = re.compile(bare)
        except re.error:
            return None
        return lambda name: quick.match(name) is not None  # one loop and few choices: linear, near enough
    parser = _Parser(text, budget)
    try:
        step = parser.branch()
    except (ValueError, IndexError, RecursionError, re.error):
        return None
    return (lambda name: bool(step(name, {0}))) if parser.at == len(text) else None


class _Parser:
    """The expressions that name modules: letters, classes, groups, choices, repetitions, look-ahead."""

    def __init__(self, text: str, budget: Budget) -> None:
        self.text, self.at, self.budget = text, 0, budget

    def branch(self) -> Step:
        """Choices between |."""
        choices = [self._sequence()]
        while self._takes("|"):
            choices.append(self._sequence())
        return lambda name, places: set().union(*(choice(name, places) for choice in choices))

    def _sequence(self) -> Step:
        steps = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            steps.append(self._repeated(self._atom()))

        def run(name: str, places: Places) -> Places:
            for step in steps:
                places = step(name, places) if places else places
            return places

        return run

    def _repeated(self, step: Step) -> Step:
        while self.at < len(self.text) and (bounds := self._bounds()):
            self._takes("?") or self._takes("+")
            step = _loop(step, *bounds)
        return step

    def _bounds(self) -> tuple[int, int] | None:
        simple = {"*": (0, LONGEST), "+": (1, LONGEST), "?": (0, 1)}.get(self.text[self.at])
        counted = re.compile(r"\{(\d{0,3})(,?)(\d{0,3})\}").match(self.text, self.at)
        if simple:
            self.at += 1
        elif counted:
            self.at = counted.end()
            least = int(counted[1] or 0)
            return least, int(counted[3] or LONGEST) if counted[2] else least
        return simple

    def _atom(self) -> Step:
        sign = self._next()
        if sign == "(":
            return self._group()
        if sign in "^$":
            return lambda name, places: places & {0 if sign == "^" else len(name)}
        return self._one(self._class() if sign == "[" else self._single(sign))

    def _group(self) -> Step:
        ahead = "=" if self._takes("?=") else "!" if self._takes("?!") else ""
        if not ahead and self._takes("?") and not self._takes(":"):
            raise ValueError("a group of another kind")
        inner = self.branch()
        if not self._takes(")"):
            raise ValueError("an open group")
        if not ahead:
            return inner
        return lambda name, places: {at for at in places if bool(inner(name, {at})) == (ahead == "=")}

    def _single(self, sign: str) -> Callable[[str], bool]:
        if sign == ".":
            return lambda _: True
        if sign != "\\":
            return sign.__eq__
        kind = self._next()
        category = _CATEGORIES.get(kind.lower())
        if category:
            return lambda one: category(one) == kind.islower()
        if kind.isalnum():
            raise ValueError("an escape of another kind")
        return kind.__eq__

    def _class(self) -> Callable[[str], bool]:
        end = re.compile(r"\^?\]?(?:\\.|[^\]\\])*").match(self.text, self.at)
        body = self.text[self.at : end.end() if end else self.at]
        self.at += len(body)
        if not self._takes("]"):
            raise ValueError("an open class")
        one = re.compile(f"[{body}]")
        return lambda sign: one.match(sign) is not None

    def _one(self, fits: Callable[[str], bool]) -> Step:
        def run(name: str, places: Places) -> Places:
            if not self.budget.spend(places):
                return set()
            return {at + 1 for at in places if at < len(name) and fits(name[at])}

        return run

    def _next(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def _takes(self, words: str) -> bool:
        found = self.text.startswith(words, self.at)
        self.at += len(words) if found else 0
        return found


def _loop(step: Step, least: int, most: int) -> Step:
    def run(name: str, places: Places) -> Places:
        for _ in range(least):
            places = step(name, places) if places else places
        found, new, times = set(places), places, least
        while new and times < most:
            new = step(name, new) - found
            found |= new
            times += 1
        return found

    return run
