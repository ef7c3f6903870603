"""A planner's answer, as far as starting it goes: refused in one line where this machine alone cannot."""

import json
import sys
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput


def read(name: str) -> dict[str, Any]:
    """The answer with its "plan", "model" and "machine", from a file or, for "-", from standard input."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        answer = json.loads(text)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(
            f"{name} is not JSON: {error}", hint="save the output of memserve.plan --json"
        ) from error
    plan = answer.get("plan", answer) if isinstance(answer, dict) else None
    if not isinstance(plan, dict):
        raise InvalidInput(f"{name} holds no plan that fits", hint="memserve.plan --why says why")
    _startable(name, plan)
    return {"model": plan.get("model"), "machine": plan.get("machine"), **answer, "plan": plan}


def _startable(name: str, plan: dict[str, Any]) -> None:
    command, nodes = plan.get("command"), {one.get("node") for one in plan.get("nodes") or ()}
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise InvalidInput(f"{name} names no command to start", hint="HTTP providers need no server")
    if len(nodes) > 1:
        raise InvalidInput(
            f"{name} is for {len(nodes)} nodes and this is one",
            hint="memserve.plan --emit slurm or kuberay writes what starts on each",
        )
    making, place = plan.get("make_checkpoint"), plan.get("checkpoint")
    if making and not Path(str(place)).exists():
        raise InvalidInput(f"{name} needs {place}, which is not made yet", hint=f"run: {making}")
