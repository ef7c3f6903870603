"""What a backend's `server` tells: the data of its `server.json`.

`programs`: the commands that start it, the planner's own first; `images`: container images by the maker of
the cards; `nodes`: how it spans several; `failures`: its last words, with what they mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal

Words = tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """One way to start the server: how it is told where to listen and which key to ask for."""

    starts: tuple[Words, ...]
    """What its command begins with, each as `PROGRAM WORD ...` or `python -m MODULE`."""
    host: str = "--host"
    port: str = "--port"
    default_port: int = 8000
    configured: bool = False
    """Address and port stand in the engine's configuration, not on the command line."""
    key_env: str = ""
    """The variable that carries the key; preferred, because arguments are visible to every user."""
    key_flag: str = ""
    key_config: str = ""
    """Its flag for a YAML file of flags, which carries `key_flag` where no variable does."""
    health: str = "/health"
    api: str = "/v1"
    waiting: str = ""
    """The metric of requests that wait, at /metrics: by it a cluster adds copies."""
    metrics_flags: Words = ()
    """What its command needs besides to tell metrics."""
    client: str = ""
    """The backend that speaks to it over HTTP."""
    dialect: str = ""
    """The name under which that backend knows this server."""
    module: str = ""
    """`python -m` this, in place of the first word, to run in a chosen interpreter."""
    source: str = ""

    @property
    def package(self) -> str:
        """The package that must be importable for it to start."""
        return (self.module or self.starts[0][-1]).split(".")[0]

    @property
    def asks_for_key(self) -> bool:
        """Whether it can be told to."""
        return bool(self.key_env or self.key_flag)

    def arguments(self, command: Sequence[str]) -> Words | None:
        """What follows the words that start it; None for another command."""
        return next((rest for start in self.starts if (rest := after(command, start)) is not None), None)

    def listening(self, command: Sequence[str], host: str, port: int) -> Words:
        """The command with the address and the port that it listens on."""
        where = () if self.configured else (self.host, host, self.port, str(port))
        return (*command, *where)


@dataclass(frozen=True)
class Spread:
    """How one deployment spans nodes. Words may hold {head}, {count}, {rank}, {here} and {first}.

    `ray`: a Ray cluster over the nodes, then one server that finds it. `ranks`: the same command on every
    node, with `every` of the words below. Copies of the model that a node holds whole are started with
    `copies` instead: on every node `{here}` copies from number `{first}` on.
    """

    way: Literal["ray", "ranks"]
    without: Words = ()
    """Options of the command that the words below replace."""
    every: Words = ()
    copies: Words = ()
    copies_later: Words = ()
    """On all nodes but the first, which then answers for all."""
    copies_over_ray: Words = ()
    env: Mapping[str, str] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class ServerFacts:
    """All that `server.json` says."""

    programs: tuple[Program, ...]
    images: Mapping[str, str] = field(default_factory=dict)
    entrypoints: Mapping[str, str] = field(default_factory=dict)
    """What the images of a repository begin their command with, where they begin one."""
    suffixes: Mapping[str, str] = field(default_factory=dict)
    """Endings of the image's tag, by how the card's name begins."""
    nodes: Spread | None = None
    failures: tuple[Mapping[str, str], ...] = ()
    variables: tuple[str, ...] = ()
    """What a plan may set, besides the cards that are visible."""
    inherits: tuple[str, ...] = ()
    """How the names of variables begin that the server takes over from its caller."""
    loads_code: tuple[str, ...] = ()
    """Its flags that load code that somebody else wrote: a plan needs consent for them. FLAG=WORDS: where its
    value holds these words."""

    @cached_property
    def program(self) -> Program:
        """The one that the planner's commands start."""
        return self.programs[0]

    def begins(self, repository: str) -> Words | None:
        """What one of its images begins its command with; None for another's image."""
        own = {image.rpartition(":")[0] for image in self.images.values()}
        said = self.entrypoints.get(repository, "" if repository in own else None)
        return None if said is None else tuple(said.split())

    def started_by(self, command: Sequence[str]) -> Program | None:
        """The program that a command starts."""
        return next((one for one in self.programs if one.arguments(command) is not None), None)


def read(rows: Mapping[str, Any]) -> ServerFacts:
    """The values of a `server.json`."""
    nodes = rows.get("nodes")
    return ServerFacts(
        programs=tuple(_program(row) for row in rows["programs"]),
        images=rows.get("images", {}), entrypoints=rows.get("entrypoints", {}),
        suffixes=rows.get("suffixes", {}),
        nodes=Spread(**_frozen(nodes)) if nodes else None, failures=tuple(rows.get("failures", ())),
        **{name: tuple(rows.get(name, ())) for name in ("variables", "inherits", "loads_code")},
    )  # fmt: skip


def _program(row: Mapping[str, Any]) -> Program:
    starts = tuple(tuple(start.split()) for start in row["starts"])
    return Program(**{**row, "starts": starts, "metrics_flags": tuple(row.get("metrics_flags", ()))})


def _frozen(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def after(command: Sequence[str], start: Words) -> Words | None:
    """What stands after `PROGRAM WORD ...` or `python ... -m MODULE`; None where it starts something else."""
    first = PurePath(command[0]).name
    if start[0] == "python":
        module = start[-1]
        places = (
            place for place, word in enumerate(command[:-1]) if (word, command[place + 1]) == ("-m", module)
        )
        place = next(places, None) if first.startswith("python") else None
        return None if place is None else tuple(command[place + 2 :])
    return tuple(command[len(start) :]) if (first, *command[1 : len(start)]) == start else None
