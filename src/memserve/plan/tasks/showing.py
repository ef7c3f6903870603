"""An answer in the form that a call asks for: a page, JSON, a picture beside either."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from memserve.plan.answer import Answer


def show(found: Answer, options: Namespace) -> int:
    """Print the answer in the form that was asked for."""
    if options.plot is not None:
        from memserve.plan.report.plot import draw

        draw(found, options.plot)
    if options.json:
        from memserve.plan.report.object import answer_object, write_json

        write_json(answer_object(found))
    else:
        from memserve.plan.report.page import show as show_text

        show_text(found, why=options.why, everything=options.all)
    return 0 if found.plan else 1
