"""What every answer can do: print itself on a screen, in a notebook, as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.plan.page.section import Section

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
        from memserve.plan.page.text import text

        return text(self.sections(), WIDTH).rstrip("\n")

    def __repr__(self) -> str:
        headline = next(iter(self.sections())).title
        return f"<{type(self).__name__}: {headline[:160]}>"

    def _repr_html_(self) -> str:
        from memserve.plan.page.html import html

        return html(self.sections())
