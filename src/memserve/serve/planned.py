"""A planner's answer, as far as starting it goes: refused in one line where this machine alone cannot."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from memserve import cli, files
from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.command import masked_text
from memserve.engines.environment import requirements
from memserve.engines.install import VISIBLE
from memserve.engines.server import ServerFacts
from memserve.errors import EngineFailed, InvalidInput, MemserveError
from memserve.missing import requirement
from memserve.plan.checking import read_by
from memserve.serve.advice import machine_of

_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*)(\[[\w,.-]+\])?==[\w.+!]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = ("backend", "engine_version", "quantization", "install", "checkpoint", "make_checkpoint")
_COUNTS = ("context", "concurrency", "tensor_parallel", "pipeline_parallel", "data_parallel")
_SCHEMA = 1
_ROUNDED = 0.005
"""GiB of a card that a plan's two decimals may leave out."""


def read(name: str, consent: Sequence[str] = (), *, make: bool = False, dry: bool = False) -> dict[str, Any]:
    """The answer with its "plan", "model" and "machine", from a file or, for "-", from standard input."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        answer = files.parsed(text)
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(
            f"{name} is not JSON: {error}", hint="save the output of memserve plan --json"
        ) from error
    plan = answer.get("plan", answer) if isinstance(answer, dict) else None
    if not isinstance(plan, dict):
        if isinstance(answer, dict) and "plan" in answer:
            raise InvalidInput(f"{name} holds no plan that fits", hint="memserve plan --why says why")
        raise InvalidInput(f"{name} is no plan", hint="save the output of memserve plan --json")
    _well_formed(name, plan)
    _startable(name, plan)
    _current(name, {**answer, **plan})
    check(plan, consent)
    _made(name, plan, make=make, dry=dry)
    backend = installed.program_of(plan["command"], plan.get("backend"))[0]
    read_by(backend, plan["command"], plan.get("engine_version"))
    found = {"model": plan.get("model"), "machine": plan.get("machine"), **answer, "plan": plan}
    _fits(name, found)
    return found


def _well_formed(name: str, plan: dict[str, Any]) -> None:
    """Whether each part that is used is of its kind: anybody may have written the file."""
    env, nodes, command = plan.get("env") or {}, plan.get("nodes") or [], plan.get("command") or []
    sound = {
        "env": isinstance(env, dict) and all(_NAME.fullmatch(key) and _is_word(env[key]) for key in env),
        "nodes": isinstance(nodes, list) and all(map(_is_node, nodes)),
        "command": isinstance(command, list) and all(map(_is_word, command)),
        **{part: plan.get(part) is None or _is_word(plan[part]) for part in _WORDS},
        **{part: plan.get(part) is None or _is_count(plan[part]) for part in _COUNTS},
    }  # fmt: skip
    wrong = next((part for part, is_sound in sound.items() if not is_sound), None)
    if wrong:
        raise InvalidInput(f"{name} is no plan: its {wrong!r} is malformed",
                           hint="save the output of memserve plan --json")  # fmt: skip


def _current(name: str, told: Mapping[str, Any]) -> None:
    """Whether it is of this form, of a backend that can be started, and one that fits."""
    if told.get("schema", _SCHEMA) != _SCHEMA:
        said = str(told["schema"])[:40]
        raise InvalidInput(f"{name} has schema {said}, this release reads {_SCHEMA}", hint="plan it again")
    if told.get("fits", True) is not True:
        raise InvalidInput(f"{name} holds a plan that does not fit", hint="memserve plan --why says why")
    if told.get("backend") is not None and not installed.can_plan(told["backend"]):
        raise InvalidInput(f"{name}: no server is planned for the backend {told['backend']!r}",
                           hint=f"known: {', '.join(installed.plannable())}")  # fmt: skip


def _fits(name: str, answer: Mapping[str, Any]) -> None:
    """Whether its command as it now stands fits its machine, where both can be read."""
    from memserve.plan import check

    plan = answer["plan"]
    words = [*(f"{key}={value}" for key, value in (plan.get("env") or {}).items()), *plan["command"]]
    try:
        judged = check(
            words, machine_of(answer), engine_version=plan.get("engine_version"), context=plan.get("context"),
            memory_gib_per_card=answer["machine"]["memory_gib_per_card"] + _ROUNDED,
            concurrency=plan.get("concurrency"),
        )  # fmt: skip
    except (MemserveError, KeyError, TypeError, ValueError, OverflowError) as error:
        why = str(error) if isinstance(error, MemserveError) else "it names no machine that can be read"
        cli.say(f"{name}: its command is taken as it stands, whether it fits was not judged: {why}")
        return
    if not judged.fits:
        raise InvalidInput(f"{name} holds a plan that does not fit: {judged.reasons[0]}",
                           hint="memserve plan --check says what would")  # fmt: skip


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_word(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_node(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("node"), int)


def _startable(name: str, plan: dict[str, Any]) -> None:
    command, nodes = plan.get("command"), {one.get("node") for one in plan.get("nodes") or ()}
    if not command:
        raise InvalidInput(f"{name} names no command to start", hint="HTTP providers need no server")
    if len(nodes) > 1:
        raise InvalidInput(
            f"{name} is for {len(nodes)} nodes and this is one",
            hint="memserve plan --emit slurm or kuberay writes what starts on each",
        )


def _made(name: str, plan: dict[str, Any], *, make: bool, dry: bool) -> None:
    """The checkpoint is there; or it is made now, by our own command and no other."""
    making, place = plan.get("make_checkpoint"), Path(str(plan.get("checkpoint")))
    if not making or place.exists():
        return
    verb, words, shown = shlex.split(making)[:2], shlex.split(making)[2:], masked_text(making)
    ours = verb == ["memserve", "compress"] and words[1::2] == ["--to", "-o"] and len(words) == 5
    if not make or not ours:
        hint = f"{'memserve serve --make does it, or ' if ours else ''}run: {shown}"
        raise InvalidInput(f"{name} needs {place}, which is not made yet", hint=hint)
    if dry:
        cli.tell(f"makes {place} first: {shown}")
        return
    done = subprocess.run([sys.executable, "-m", "memserve.compress", *words], check=False, stdout=sys.stderr)
    if done.returncode:
        raise EngineFailed(f"{place} could not be made", hint=f"exit code {done.returncode} of {shown}")


def check(plan: Mapping[str, Any], consent: Sequence[str] = ()) -> None:
    """Refuse the first thing that goes beyond, unless `consent` names it."""
    for what, word in _beyond(plan):
        told = masked_text(word)  # consent to a key is consent to what was told of it
        if word not in consent and told not in consent:
            raise InvalidInput(
                f"the plan asks for {what} {told[:80]!r}, which the planner would not write",
                hint=f"if you trust whoever wrote it: --allow {shlex.quote(told[:80])}",
            )


def _beyond(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    command = plan["command"]
    name, program = installed.program_of(command, plan.get("backend"))
    backend = installed.named(name)
    if not any(tuple(command[: len(start)]) == start for start in program.starts):
        yield "the program", command[0]
    server = server_of(backend)
    yield from (("code that is loaded by", said) for said in _loading(name, command, server))
    variables = {*VISIBLE.values(), *(server.variables if server else ())}
    yield from (("the variable", one) for one in plan.get("env") or {} if one not in variables)
    if plan.get("install"):
        yield from _installing(plan["install"], (*backend.rules.get("versions", ()), requirement(name)))


def _loading(name: str, command: Sequence[str], server: ServerFacts | None) -> Iterator[str]:
    """Flags that load code, as they stand and as the engine's own parser reads them: by aliases, by dots."""
    rows = (row.replace("_", "-").partition("=") for row in (server.loads_code if server else ()))
    held = {flag: words for flag, _, words in rows}
    always = [f"--{flag}" for flag, words in held.items() if not words]
    for word in command:
        *names, last = word.split("=")
        for said in names or [last]:
            flag = (
                said.replace("_", "-").partition(".")[0] if said.startswith("--") else said.replace("_", "-")
            )
            begun = flag.startswith("--") and any(one.startswith(flag) for one in always)
            if begun or (names and f"--{flag}" in always):  # `--options NAME=VALUE`, too
                yield said
    read = installed.named(name).launch.parse(tuple(command)) if any(held.values()) else None
    for flag, value in read[1].options if read else ():
        own, _, key = flag.partition(".")
        if own in held and held[own] in f"{key}={value}":
            yield f"--{flag}"


def _installing(line: str, releases: Sequence[Any]) -> Iterator[tuple[str, str]]:
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
