"""memserve plan MODEL --emit compose|slurm|kuberay|kubernetes|kubernetes-keda"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memserve.errors import DoesNotFit, InvalidInput
from memserve.plan import emit

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Print the file alone, so that it can be piped; with --json, the answer and the file in it."""
    from memserve.plan.library import answered, miss
    from memserve.plan.query import Query
    from memserve.plan.tasks.options import asked

    emit.check(options.emit)
    _check_address(options.bind)
    found = answered(options.model, options.gpus, Query.of(**asked(options)), everything=options.all)
    if found.plan is None and not options.json:
        raise DoesNotFit(miss(found), closest=found.closest)
    text = None if found.plan is None else emit.emit(found.plan, options.emit, bind=options.bind)
    if options.json:
        from memserve.plan.answer import answer_object
        from memserve.plan.page import write_json

        write_json({**answer_object(found), "emitted": text})
    elif text:
        sys.stdout.write(text)
    return 0 if found.plan else 1


def _check_address(text: str) -> None:
    from ipaddress import IPv4Address

    try:
        IPv4Address(text)
    except ValueError:
        raise InvalidInput(
            f"--bind {text[:40]!r} is no IPv4 address", hint="127.0.0.1, 0.0.0.0, ..."
        ) from None
