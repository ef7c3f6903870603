"""Files that start a plan: Compose, Slurm, KubeRay, Kubernetes; and the commands for every node."""

from collections.abc import Sequence
from importlib import import_module

from memserve.errors import InvalidInput
from memserve.plan.plan import Plan

FORMATS = ("compose", "slurm", "kuberay", "kubernetes", "kubernetes-keda")
LOOPBACK = "127.0.0.1"


def emit(plan: Plan, form: str, *, bind: str = LOOPBACK) -> str:
    """The file that starts a plan, as text; the server listens on `bind` only."""
    from memserve.plan.emit.server import Server
    from memserve.plan.nodes import steps

    check(form)
    found = steps(plan)
    if not found:
        raise InvalidInput(f"{plan.backend} is a provider's service: there is nothing to start")
    server = Server(plan)
    server.started_by(form)
    module = "kubernetes" if form.startswith("kube") else form
    text: str = import_module(f"{__name__}.{module}").text(server, found, bind, form)
    return _made_first([plan], text)


def emit_all(plans: Sequence[Plan], form: str, *, bind: str = LOOPBACK) -> str:
    """One file that starts several plans on the cards of one machine."""
    from memserve.plan.emit.compose import several
    from memserve.plan.emit.server import Server
    from memserve.plan.nodes import steps

    if form != "compose":
        raise InvalidInput(f"--emit {form} writes one plan: --emit compose starts several on one machine")
    servers = [Server(plan) for plan in plans]
    for server in servers:
        server.started_by(form)
    return _made_first(plans, several([(server, steps(server.plan)) for server in servers], bind))


def _made_first(plans: Sequence[Plan], text: str) -> str:
    """The file, which says below its first line what must be made before it is started."""
    makes = (" ".join(plan.checkpoint.make.splitlines()) for plan in plans if plan.checkpoint.make)
    said = "".join(f"# Before the first start: {make}\n" for make in makes)
    first, end, rest = text.partition("\n")
    return f"{first}{end}{said}{rest}"


def check(form: str) -> None:
    """Refuse a format that is not known, before any work."""
    if form not in FORMATS:
        raise InvalidInput(f"--emit {form[:40]!r} is not known", hint=f"known: {', '.join(FORMATS)}")
