"""A value in the form that a call asks for: a page, or one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.plan.page.shown import Shown

if TYPE_CHECKING:
    from argparse import Namespace


def show(value: Shown, options: Namespace) -> int:
    """Print the value; 0 if what was asked can be had."""
    if options.json:
        from memserve.plan.report.object import write_json

        write_json(value.to_dict())
    else:
        from memserve.plan.page.text import write

        write(value.sections(why=getattr(options, "why", False), everything=getattr(options, "all", False)))
    return 0 if value.fits else 1
