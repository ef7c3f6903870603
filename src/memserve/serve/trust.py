"""What a plan may ask for without consent: what the planner itself would write. All else is named."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.install import VISIBLE
from memserve.errors import InvalidInput
from memserve.serve.environment import requirements

_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,.-]+\])?==[\w.+!]+")


def check(plan: Mapping[str, Any], consent: Sequence[str] = ()) -> None:
    """Refuse the first thing that goes beyond, unless `consent` names it."""
    for what, word in _beyond(plan):
        if word not in consent:
            raise InvalidInput(
                f"the plan asks for {what} {word[:80]!r}, which the planner would not write",
                hint=f"if you trust whoever wrote it: --allow {shlex.quote(word[:80])}",
            )


def _beyond(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    command = plan["command"]
    name, program = installed.program_of(command, plan.get("backend"))
    backend = installed.named(name)
    if not any(tuple(command[: len(start)]) == start for start in program.starts):
        yield "the program", command[0]
    server = server_of(backend)
    code = server.loads_code if server else ()
    for word in command:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and any(one.startswith(flag[2:]) for one in code):
            yield "code that is loaded by", word.partition("=")[0]
    variables = {*VISIBLE.values(), *(server.variables if server else ())}
    yield from (("the variable", one) for one in plan.get("env") or {} if one not in variables)
    if plan.get("install"):
        yield from _installing(plan["install"], backend.rules.get("versions", ()))


def _installing(line: str, releases: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Words of an install line that no release of the backend knows; packages of ours only at one version."""
    texts = [*_texts(releases), "pip install"]
    known = {word for text in texts for word in shlex.split(text)}
    packages = {found[1].lower() for word in known if (found := _PINNED.fullmatch(word))}
    variables, words = requirements(line)
    for name, value in variables.items():
        if f"{name}={value}" not in known:
            yield "the variable", f"{name}={value}"
    for word in words:
        pinned = _PINNED.fullmatch(word)
        ours = word in known or word == "--extra-index-url" or (pinned and pinned[1].lower() in packages)
        if not ours:
            yield "the installation of", word


def _texts(rows: Any) -> Iterator[str]:
    """Every package, installer and index of the releases' rows."""
    if isinstance(rows, str):
        yield rows
    elif isinstance(rows, Mapping):
        for name, value in rows.items():
            if name not in ("note", "source", "needs", "lost", "version", "python_range", "install"):
                yield from _texts(value)
    elif isinstance(rows, Sequence):
        for row in rows:
            yield from _texts(row)
