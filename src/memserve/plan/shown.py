"""What every answer can do: print itself on a screen, in a notebook, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace

    from memserve.plan.page import Section

WIDTH = 100


class Shown:
    """A value that a person may look at: `str` is a page, `repr` a line, notebooks get tables."""

    @property
    def fits(self) -> bool:
        """Whether what was asked can be had."""
        raise NotImplementedError

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterable[Section]:
        """The page, the most important first; `why` adds every rejection, `everything` what else fits."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The value as JSON has it."""
        raise NotImplementedError

    def __str__(self) -> str:
        from memserve.plan.page import text

        return text(self.sections(), WIDTH).rstrip("\n")

    def __repr__(self) -> str:
        headline = next(iter(self.sections())).title
        return f"<{type(self).__name__}: {headline[:160]}>"

    def _repr_html_(self) -> str:
        from memserve.plan.page import html

        return html(self.sections())


def show(value: Shown, options: Namespace) -> int:
    """Print the value; 0 if what was asked can be had."""
    if options.json:
        write_json(value.to_dict())
    else:
        from memserve.plan.page import write

        write(value.sections(why=getattr(options, "why", False), everything=getattr(options, "all", False)))
    return 0 if value.fits else 1


def write_json(answer: dict[str, Any]) -> None:
    """One object on stdout."""
    import json

    sys.stdout.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
