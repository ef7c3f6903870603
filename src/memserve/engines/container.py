"""A command inside `docker run IMAGE ...`: the engine's own words, its variables, the image's release."""

import re
from collections.abc import Mapping, Sequence

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.command import taken_apart
from memserve.errors import InvalidInput

Words = tuple[str, ...]
PROGRAMS = frozenset({"docker", "podman", "nerdctl"})
SHELLS = frozenset({"bash", "sh", "/bin/bash", "/bin/sh"})
BARE = frozenset({
    "detach", "disable-content-trust", "help", "init", "interactive", "no-healthcheck", "oom-kill-disable",
    "privileged", "publish-all", "quiet", "read-only", "replace", "rm", "sig-proxy", "tty",
})  # fmt: skip
"""Options of `run` that take no value."""
LETTERS = re.compile("-[ditqP]+$")
"""The same as letters."""
RELEASE = re.compile(r"v?\d+\.\d+(\.\d+)?((\.|-)?(rc|post)\d+)?")


def opened(variables: Mapping[str, str], words: Words) -> tuple[dict[str, str], Words, str | None]:
    """The variables, the command and the release of what is started, be it in a container or a shell."""
    version = None
    if words[0] in PROGRAMS and "run" in words[1:3]:
        inside, words, version = _run(words[words.index("run") + 1 :])
        variables = {**variables, **inside}
    if words[0] in SHELLS and len(words) > 2 and re.fullmatch("-[elx]*c", words[1]):
        inside, words = taken_apart(words[2])
        variables = {**variables, **inside}
    return dict(variables), words, version


def _run(words: Sequence[str]) -> tuple[dict[str, str], Words, str | None]:
    options, rest = _options(list(words))
    if not rest:
        raise InvalidInput("the command names no image", hint="write docker run IMAGE --model MODEL ...")
    repository, _, tag = rest[0].partition("@")[0].removeprefix("docker.io/").partition(":")
    entry = next((value for name, value in options if name == "entrypoint"), None)
    begins = (entry,) if entry else _begins(repository)
    command = tuple(rest[1:])
    if begins is None and (not command or command[0].startswith("-")):
        raise InvalidInput(
            f"no backend knows what the image {repository[:80]!r} starts",
            hint="give the command that runs in it",
        )
    explicit = entry is None and bool(command) and _starts(command)
    found = RELEASE.match(tag) if begins is not None else None
    whole = command if explicit else (*(begins or ()), *command)
    if not whole:
        raise InvalidInput("the command names no program", hint="write what the container runs after IMAGE")
    return _variables(options), whole, found[0].removeprefix("v") if found else None


def _starts(command: Words) -> bool:
    """Whether these words are a command of their own, not arguments of the image's."""
    servers = (server_of(installed.named(name)) for name in installed.plannable())
    return command[0] in SHELLS or any(server and server.started_by(command) for server in servers)


def _begins(repository: str) -> Words | None:
    servers = (server_of(installed.named(name)) for name in installed.plannable())
    found = (server.begins(repository) for server in servers if server)
    return next((words for words in found if words is not None), None)


def _options(words: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Options of `run` with their values, and the words from the image on."""
    found: list[tuple[str, str]] = []
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        plain = name.lstrip("-")
        if not equals and plain not in BARE and not LETTERS.match(name):
            value = words.pop(0) if words else ""
        found.append((plain, value))
    return found, words


def _variables(options: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What `-e NAME=VALUE` sets, and the cards that `--gpus` shows."""
    found: dict[str, str] = {}
    for name, value in options:
        if name in ("e", "env") and "=" in value:
            key, _, text = value.partition("=")
            found[key] = text
        shown = value.strip("\"'").removeprefix("device=") if name == "gpus" else ""
        if shown.isdigit() and "device=" not in value:
            shown = ",".join(map(str, range(min(int(shown), 64))))
        if re.fullmatch(r"[\d,]+", shown):
            found["CUDA_VISIBLE_DEVICES"] = shown
    return found
