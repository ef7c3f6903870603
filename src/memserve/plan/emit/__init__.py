"""Files that start a plan: Compose, Slurm, KubeRay; and the commands for every node."""

from importlib import import_module

from memserve.errors import InvalidInput
from memserve.plan.plan import Plan

FORMATS = ("compose", "slurm", "kuberay")
LOOPBACK = "127.0.0.1"


def emit(plan: Plan, form: str, *, bind: str = LOOPBACK) -> str:
    """The file that starts a plan, as text; the server listens on `bind` only."""
    from memserve.plan.emit.server import Server
    from memserve.plan.nodes import steps

    check(form)
    found = steps(plan)
    if not found:
        raise InvalidInput(f"{plan.backend} is a provider's service: there is nothing to start")
    text: str = import_module(f"{__name__}.{form}").text(Server(plan), found, bind)
    return text


def check(form: str) -> None:
    """Refuse a format that is not known, before any work."""
    if form not in FORMATS:
        raise InvalidInput(f"--emit {form[:40]!r} is not known", hint=f"known: {', '.join(FORMATS)}")
