"""One job of several stages:  memserve run job.toml -o FOLDER

Each stage is a run of its own, with its own journal: lines go in, what is answered and kept goes on. The same
line again goes on where it ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_type_hints

from memserve import files, registry
from memserve.errors import InvalidInput, UnknownName
from memserve.files import parsed
from memserve.options import finite
from memserve.run.job import Job
from memserve.run.options import Options
from memserve.run.requests import SETTINGS
from memserve.run.store.files import make_folder
from memserve.run.summary import Summary, answers

Line = dict[str, Any]
Tell = Callable[[str], None]
FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
RUN = ("concurrency", "rpm", "tpm", "budget", "price", "patience", "batch")
MOST_ROUNDS = 100


@dataclass(frozen=True)
class Stage:
    """One step: who is asked what about each line, and what of it goes on."""

    name: str
    prompt: str = ""
    """{field} stands for a field of the line; empty: nobody is asked, `keep` and the like filter the text."""
    n: int = 1
    """Answers of each line."""
    judges: bool = False
    """The answer is a verdict on the line, whose text stays."""
    keep: str = ""
    """A regular expression that the answer must hold."""
    drop: str = ""
    """One that it must not hold."""
    distinct: bool = False
    """Of equal answers only the first goes on."""
    backend: str | None = None
    model: str | None = None
    base_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    gpus: str | None = None
    """What the model is to run on, for the estimate: 4xV100@10."""
    instead: str | None = None
    """A provider that could answer, for the break-even: openai:gpt-4o-mini."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    def passes(self, text: str) -> bool:
        """Whether an answer lets its line go on."""
        kept = not self.keep or re.search(self.keep, text) is not None
        return kept and not (self.drop and re.search(self.drop, text))


@dataclass(frozen=True)
class Plan:
    """The whole job, as its file says it."""

    stages: tuple[Stage, ...]
    seeds: Path
    gold: float | Path = 0.0
    """A share of the seeds, or a file of lines: set apart, and never made again."""
    rounds: int = 1
    """What the last stage keeps seeds the next round."""


OWN = {one.name for one in fields(Stage)} - {"settings", "run"}
KINDS: dict[Any, tuple[type, str]] = {
    str: (str, "text"), str | None: (str, "text"), int: (int, "a whole number"),
    bool: (bool, "true or false"), Mapping[str, Any]: (Mapping, "a table of keys"),
}  # fmt: skip
WHOLE = ("seeds", "gold", "rounds", "stage")


def read(path: Path) -> Plan:
    """The job in a .toml file, or in a .json file with the same keys."""
    found = _parsed(path)
    _known(f"{path}", found, WHOLE)
    seeds, rounds = found.get("seeds"), found.get("rounds", 1)
    if not isinstance(seeds, str) or not isinstance(found.get("stage"), list) or not found["stage"]:
        raise InvalidInput(f'{path}: a job has seeds = "FILE.jsonl" and at least one [[stage]]')
    if isinstance(rounds, bool) or not isinstance(rounds, int) or not 1 <= rounds <= MOST_ROUNDS:
        raise InvalidInput(f"{path}: rounds is a whole number from 1 to {MOST_ROUNDS}")
    stages = tuple(_stage(f"{path}, stage {at}", row) for at, row in enumerate(found["stage"], 1))
    names = [one.name for one in stages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InvalidInput(f"{path}: two stages are called {twice!r}")
    return Plan(stages, path.parent / seeds, _gold(path, found.get("gold", 0.0)), rounds)


def _parsed(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            found = parsed(text)
        else:
            import tomllib  # since 3.11

            found = tomllib.loads(text)
    except ImportError:
        raise InvalidInput(
            f"{path}: TOML needs Python 3.11", hint="a .json file takes the same keys"
        ) from None
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is malformed: {str(error)[:120]}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} holds no job: a table of keys (requests are a .jsonl file)")
    return found


def _known(where: str, row: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in row:
        if name not in names:
            near = tuple(get_close_matches(name, names, n=1))
            meant = f": did you mean {near[0]}?" if near else ""
            raise UnknownName(f"{where}: unknown key {name[:40]!r}{meant}", suggestions=near)


def _gold(path: Path, given: Any) -> float | Path:
    if isinstance(given, str):
        return path.parent / given
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
        raise InvalidInput(f"{path}: gold is a share of the seeds below 1, or a file of lines")
    return float(given)


def _stage(where: str, row: Any) -> Stage:
    if not isinstance(row, dict):
        raise InvalidInput(f"{where} is a table of keys")
    _known(where, row, [*sorted(OWN), *SETTINGS, *RUN])
    name = row.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidInput(f"{where}: a stage has a short name of small letters")
    own = {key: value for key, value in row.items() if key in OWN}
    _typed(where, row)
    _sound(where, own)
    run = {key: row[key] for key in RUN if key in row}
    settings = {key: row[key] for key in SETTINGS if key in row and key not in OWN}
    try:  # refuses here what it would refuse in the middle of the night
        Options.of(**run, settings=settings)
        finite("options", own.get("options"))
        if "backend" in own:
            registry.find(own["backend"])
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}") from None
    return Stage(**own, settings=settings, run=run)


def _typed(where: str, row: Mapping[str, Any]) -> None:
    """Refuses a value that its key's field cannot hold; what Options.of reads is left to it."""
    hints = {**get_type_hints(Stage), "batch": bool}
    for key, value in row.items():
        kind, says = KINDS.get(hints.get(key), (object, ""))
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise InvalidInput(f"{where}: {key} is {says}, not {repr(value)[:40]}")


def _sound(where: str, own: Mapping[str, Any]) -> None:
    n = own.get("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 1000:
        raise InvalidInput(f"{where}: n is a whole number from 1 to 1000")
    if n > 1 and not own.get("prompt"):
        raise InvalidInput(f"{where}: n is of answers, and without a prompt nobody is asked")
    if own.get("judges") and not (own.get("prompt") and (own.get("keep") or own.get("drop"))):
        raise InvalidInput(f"{where}: a judge needs a prompt, and keep or drop")
    try:
        re.compile(own.get("keep", ""))
        re.compile(own.get("drop", ""))
    except re.error as error:
        raise InvalidInput(f"{where}: keep or drop is no regular expression: {error}") from None


class Pipeline:
    """A job at work in its folder: seeds, rounds, stages, the gold set apart."""

    def __init__(self, plan: Plan, folder: Path, opener: Callable[[Stage], Any], tell: Tell,
                 progress: bool | None = None) -> None:  # fmt: skip
        self.plan, self.folder, self._opener, self._tell = plan, folder, opener, tell
        self._progress = progress
        seeds = list(_lines(plan.seeds))
        if not seeds:
            raise InvalidInput(f"{plan.seeds} holds no line: nobody is asked")
        self.gold, self.seeds = _apart(seeds, plan.gold)
        self._taken = {_plain(one) for one in self.gold}
        self.failed = 0
        self.stopped: tuple[Job, Summary] | None = None
        """The run that was interrupted, or ended early."""

    def execute(self) -> int:
        """Lines of the finished data set; -1 where a stage was stopped: the same call goes on."""
        self._refuse_foreign()
        make_folder(self.folder.parent)
        (self.folder / "round-1").mkdir(parents=True, exist_ok=True)
        _write(self.folder / "gold.jsonl", self.gold)
        lines, kept = self.seeds, list[Line]()
        for number in range(1, self.plan.rounds + 1):
            for stage in self.plan.stages:
                lines = self._through(stage, lines, self.folder / f"round-{number}")
                if self.stopped:
                    return -1
                if not lines:  # nobody is left to be asked
                    _write(self.folder / "data.jsonl", kept)
                    return len(kept)
            kept += lines
        _write(self.folder / "data.jsonl", kept)
        return len(kept)

    def _refuse_foreign(self) -> None:
        """What this job reads, or another program wrote, gets no output in its place."""
        read = [path for path in (self.plan.seeds, self.plan.gold) if isinstance(path, Path)]
        for path in (self.folder / "data.jsonl", self.folder / "gold.jsonl"):
            begun = (self.folder / "round-1").is_dir()
            if path.exists() and (not begun or any(map(path.samefile, read))):
                why = "this job reads it" if begun else "no job wrote it"
                raise InvalidInput(f"{path} is there, and {why}", hint="name another -o")

    def _through(self, stage: Stage, lines: list[Line], folder: Path) -> list[Line]:
        """What goes on from a stage."""
        said = self._asked(stage, lines, folder) if stage.prompt and lines else unasked(lines)
        if self.stopped:
            return []
        kept = self.kept(stage, said)
        self._tell(f"{folder.name}, {stage.name}: {len(kept)} of {len(lines) * stage.n} go on")
        return kept

    def kept(self, stage: Stage, said: list[tuple[Line, str]]) -> list[Line]:
        """The lines whose text, or verdict, a stage lets go on."""
        seen, kept = set[str](), list[Line]()
        for line, text in said:
            fresh = not stage.distinct or (mark := " ".join(text.lower().split())) not in seen
            if fresh and stage.passes(text) and _plain(line) not in self._taken:
                kept.append(line)
                if stage.distinct:
                    seen.add(mark)
        return kept

    def _asked(self, stage: Stage, lines: list[Line], folder: Path) -> list[tuple[Line, str]]:
        folder.mkdir(parents=True, exist_ok=True)
        asked = {request["id"]: (line, request) for line, request in _requests(stage, lines)}
        requests, output = folder / f"{stage.name}.requests.jsonl", folder / f"{stage.name}.jsonl"
        _same(stage, requests, output, asked)
        _write(requests, [request for _, request in asked.values()])
        with self._opener(stage) as generator:
            options = Options.of(**stage.run, settings=stage.settings, progress=self._progress)
            job = Job(requests, output, generator, options)
            summary = job.execute()
        self._tell(str(summary))
        self.failed += summary.failed
        if summary.pending or job.error or (job.interrupts and job.interrupts.caught):
            self.stopped = (job, summary)
            return []
        said = (row for row in answers(output) if row["id"] in asked and row["text"])  # none, as of a refusal
        rows = sorted(said, key=lambda row: row["index"])
        return [(_after(stage, asked[row["id"]][0], row), row["text"]) for row in rows]


def _same(stage: Stage, requests: Path, output: Path, asked: Mapping[str, tuple[Line, Line]]) -> None:
    """A stage that has begun is gone on with as it was, or not at all."""
    if not (requests.exists() and output.exists()):
        return
    for old in answers(requests):
        new = asked.get(old["id"], (None, old))[1]
        if new["prompt"] != old["prompt"]:
            hint = f"name another -o, or remove {output} and what follows from it"
            raise InvalidInput(f"stage {stage.name}: it was begun with another prompt or text", hint=hint)


def _after(stage: Stage, line: Line, row: Mapping[str, Any]) -> Line:
    """The line with what was said: a verdict beside its text, or a new text."""
    said = row["text"]
    return {**line, stage.name: said, **({} if stage.judges else {"id": row["id"], "text": said})}


def unasked(lines: list[Line]) -> list[tuple[Line, str]]:
    """The lines with their own text, where nobody is asked."""
    return [(line, str(line.get("text", ""))) for line in lines]


def _requests(stage: Stage, lines: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Each line's requests: its id says where it comes from, its seed differs from sample to sample."""
    for line in lines:
        for sample in range(stage.n):
            name = f"{line['id']}/{stage.name}" + (f".{sample + 1}" if stage.n > 1 else "")
            seed = stage.settings.get("seed")
            own = {"seed": seed + sample} if isinstance(seed, int) and stage.n > 1 else {}
            yield line, {"id": name, "prompt": filled(stage, line), **own}


def filled(stage: Stage, line: Line) -> str:
    """The prompt with the line's fields; a field that is not there is refused by name."""

    def value(found: re.Match[str]) -> str:
        if (held := line.get(found[1])) is None:
            there = ", ".join(map(str, line))
            raise InvalidInput(
                f"stage {stage.name}: {{{found[1]}}} is not in line {line['id']} ({there})"[:280]
            )
        return held if isinstance(held, str) else json.dumps(held, ensure_ascii=False)

    return FIELD.sub(value, stage.prompt)


def _apart(seeds: list[Line], gold: float | Path) -> tuple[list[Line], list[Line]]:
    """The gold set and the rest: by a hash of the id, so that it is the same whatever else is in the file."""
    if isinstance(gold, Path):
        apart = list(_lines(gold))
        names, texts = {line["id"] for line in apart}, {_plain(line) for line in apart}
        return apart, [one for one in seeds if one["id"] not in names and _plain(one) not in texts]
    chosen = {one["id"] for one in seeds if _share(str(one["id"])) < gold}
    return [one for one in seeds if one["id"] in chosen], [one for one in seeds if one["id"] not in chosen]


def _share(name: str) -> float:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") / 2.0**64


def _plain(line: Line) -> str:
    return " ".join(str(line.get("text", line.get("prompt", ""))).lower().split()) or f"\0{line['id']}"


def _lines(path: Path) -> Iterator[Line]:
    """Lines with an id each; a bare string is a text."""
    try:
        rows = path.read_text(encoding="utf-8").split("\n")  # a text may hold other line ends
    except (OSError, UnicodeError) as error:
        raise InvalidInput(f"cannot read {path}: {getattr(error, 'strerror', 'it is not UTF-8')}") from None
    seen = set[str]()
    for number, row in enumerate(rows, 1):
        if not row.strip():
            continue
        try:
            value = parsed(row)
        except ValueError as error:
            raise InvalidInput(f"{path}, line {number} is no JSON: {str(error)[:80]}") from None
        line = {"text": value} if isinstance(value, str) else value
        if not isinstance(line, dict):
            raise InvalidInput(f"{path}, line {number} is neither an object nor a text")
        line = {"id": str(line.get("id", number)), **{key: line[key] for key in line if key != "id"}}
        if line["id"] in seen:
            raise InvalidInput(f"{path}, line {number}: the id {line['id'][:60]!r} stands there twice")
        seen.add(line["id"])
        yield line


def _write(path: Path, lines: Sequence[Line]) -> None:
    files.write(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
