"""A command inside `docker run IMAGE ...` or a shell: the engine's words, variables, image and release."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.command import taken_apart
from memserve.engines.server import ServerFacts
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
MOST_CARDS = 64


class Started(NamedTuple):
    """What a command starts in the end."""

    variables: Mapping[str, str]
    words: Words
    image: str = ""
    release: str | None = None
    """What the tag of the engine's own image says."""


def opened(variables: Mapping[str, str], words: Words) -> Started:
    """What a command starts, be it in a container or a shell."""
    found = Started(variables, words)
    if words[0] in PROGRAMS and "run" in words[1:3]:
        found = _run(variables, words[words.index("run") + 1 :])
    if found.words[0] in SHELLS and len(found.words) > 2 and re.fullmatch("-[elx]*c", found.words[1]):
        inside, words = taken_apart(found.words[2])
        found = found._replace(variables={**found.variables, **inside}, words=words)
    return found


def _run(variables: Mapping[str, str], words: Sequence[str]) -> Started:
    options, rest = _options(list(words))
    if not rest:
        raise InvalidInput("the command names no image", hint="write docker run IMAGE --model MODEL ...")
    image, *command = rest
    repository, _, tag = image.partition("@")[0].removeprefix("docker.io/").rpartition(":")
    repository, tag = (repository, tag) if repository and "/" not in tag else (tag, "")
    entry = next((value for name, value in options if name == "entrypoint"), None)
    begins = (entry,) if entry else _begins(repository)
    if begins is None and (not command or command[0].startswith("-")):
        raise InvalidInput(f"no backend knows what the image {repository[:80]!r} starts",
                           hint="give the command that runs in it")  # fmt: skip
    explicit = entry is None and bool(command) and _starts(command)
    whole = tuple(command) if explicit else (*(begins or ()), *command)
    if not whole:
        raise InvalidInput("the command names no program", hint="write what the container runs after IMAGE")
    found = RELEASE.match(tag) if begins is not None else None
    release = found[0].removeprefix("v") if found else None
    return Started({**variables, **_variables(options)}, whole, image, release)


def _servers() -> list[ServerFacts]:
    servers = (server_of(installed.named(name)) for name in installed.plannable())
    return [server for server in servers if server]


def _starts(command: Sequence[str]) -> bool:
    """Whether these words are a command of their own, not arguments of the image's."""
    return command[0] in SHELLS or any(server.started_by(command) for server in _servers())


def _begins(repository: str) -> Words | None:
    found = (server.begins(repository) for server in _servers())
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
            shown = ",".join(map(str, range(min(int(shown), MOST_CARDS))))
        if re.fullmatch(r"[\d,]+", shown):
            found["CUDA_VISIBLE_DEVICES"] = shown
    return found
