"""memserve plan MODEL --emit compose|slurm|kuberay|kubernetes|kubernetes-keda"""

from __future__ import annotations

import sys
from ipaddress import AddressValueError, IPv4Address
from typing import TYPE_CHECKING

from memserve.errors import DoesNotFit, InvalidInput
from memserve.plan import emit
from memserve.plan.library import miss
from memserve.plan.page import write_json
from memserve.plan.tasks.options import plan

if TYPE_CHECKING:
    from argparse import Namespace


def run(options: Namespace) -> int:
    """Print the file alone, so that it can be piped; with --json, the answer and the file in it."""
    emit.check(options.emit)
    try:
        IPv4Address(options.bind)
    except AddressValueError:
        said = f"--bind {options.bind[:40]!r} is no IPv4 address"
        raise InvalidInput(said, hint="127.0.0.1, 0.0.0.0, ...") from None
    found = plan(options)
    if found.plan is None and not options.json:
        raise DoesNotFit(miss(found), closest=found.closest)
    text = found.plan and emit.emit(found.plan, options.emit, bind=options.bind)
    if options.json:
        write_json({**found.to_dict(), "emitted": text})
    elif text:
        sys.stdout.write(text)
    return 0 if found.plan else 1
