"""One checkpoint from start to end: measure, make, measure again, judge; what is done is not done twice."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.compress import checks, interpreter, report
from memserve.compress.text import Text
from memserve.engines.making import Library, Method
from memserve.errors import DoesNotFit, InvalidInput
from memserve.files import lock

REPORT = "report.json"


@dataclass(frozen=True)
class Job:
    """What is to be made of which model, and where it goes."""

    order: checks.Order
    name: str
    """The model as it was named."""
    folder: Path
    text: Text
    gate: report.Gate
    pythons: interpreter.Interpreters
    questions: tuple[dict[str, Any], ...] = ()
    tell: Callable[[str], None] = print

    @property
    def partial(self) -> Path:
        """Where everything lies until it is judged."""
        return self.folder.with_name(self.folder.name + ".partial")

    @property
    def refused(self) -> Path:
        """What the gate refused is named so."""
        return self.folder.with_name(self.folder.name + ".refused")

    def run(self) -> dict[str, Any]:
        """The report; the folder has its last name when this returns."""
        if self.folder.exists():
            return self._made_before()
        checks.refuse(checks.run(self.order, self.folder))
        self.partial.mkdir(parents=True, exist_ok=True)
        with alone(self.partial / "lock"):
            for name, text in (("calibration", self.text.calibration), ("judged", self.text.judged)):
                (self.partial / f"{name}.txt").write_text(text, encoding="utf-8")
            found = self._steps()
            self._finish(found)
        return found

    def _made_before(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.folder / REPORT).read_text(encoding="utf-8"))
            if (found["model"], found["methods"]) == (self.name, [one.name for one in self.order.methods]):
                self.tell(f"{self.folder} is there already")
                return found
        raise InvalidInput(f"{self.folder} exists", hint="name another folder with -o, or move it away")

    def _steps(self) -> dict[str, Any]:
        """The original measured, each method applied to what the one before it left, the result measured."""
        steps = [before := self._measure("original", self.order.methods[-1].library, self.name)]
        place, key = str(before["folder"]), str(before["key"])
        for number, method in enumerate(self.order.methods):
            steps.append(made := self._make(method, number, place, key))
            place, key = made["target"], made["key"]
        steps.append(after := self._measure("result", self.order.methods[-1].library, place, key))
        return self._report(before, after, steps)

    def _measure(self, name: str, library: Library, model: str, after: str = "") -> dict[str, Any]:
        """The original by transformers; a result by its library where transformers does not read it."""
        kept = self.partial / "original"
        kept.mkdir(exist_ok=True)
        original = name == "original"
        job = {
            **({} if library.judges and not original else {"worker": "memserve.compress.worker.measure"}),
            "do": "measure", "model": model, "original": original, "kept": str(kept),
            "text": str(self.partial / "judged.txt"), "window": self.order.window,
            "windows": self.order.windows, "questions": list(self.questions),
        }  # fmt: skip
        return self._step(name, library, job, [_identity(model), self.text.judged, after])

    def _make(self, method: Method, number: int, source: str, after: str) -> dict[str, Any]:
        target = self.partial / f"made-{number}"
        job = {
            "do": method.kind if method.prunes else "make", "model": source, "kind": method.kind,
            "method": method.name, "amount": method.amount, "target": str(target),
            "text": str(self.partial / "calibration.txt"), "length": self.order.length,
            "samples": self.order.samples_of(method), "group": method.group(self.order.result),
            "file": f"{self.folder.name}.gguf",
        }  # fmt: skip
        found = self._step(f"make {method.name}", method.library, job, [after, self.text.calibration], target)
        return {"target": str(target), **found}

    def _step(self, name: str, library: Library, job: Mapping[str, Any], wanted: list[str],
              clear: Path | None = None) -> dict[str, Any]:  # fmt: skip
        """The kept answer of a step whose inputs are the same, or the work itself."""
        key = hashlib.sha256(json.dumps([job, wanted, library.packages], sort_keys=True).encode()).hexdigest()
        file = self.partial / f"{name.replace(' ', '-').replace(':', '-')}.json"
        with suppress(OSError, ValueError):
            done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if done["key"] == key:
                self.tell(f"{name}: done before")
                return done
        if clear is not None:
            shutil.rmtree(clear, ignore_errors=True)
            clear.mkdir()
        self.tell(f"{name} ({library.name}) ...")
        python = self.pythons.having(library)
        if python is None:
            raise DoesNotFit(f"{library.name} is not installed", hint=library.install)
        answer = interpreter.work(python, library, {**job, "name": name}, self.partial / "work")
        done = {"name": name, "key": key, **answer}
        file.with_suffix(".new").write_text(json.dumps(done), encoding="utf-8")
        file.with_suffix(".new").replace(file)
        return done

    def _report(self, before: Mapping[str, Any], after: Mapping[str, Any],
                steps: list[dict[str, Any]]) -> dict[str, Any]:  # fmt: skip
        libraries = {name: release for step in steps for name, release in step["libraries"].items()}
        samples = max(map(self.order.samples_of, self.order.methods))
        text = {**self.text.to_dict(), "window": self.order.window, "windows": before["windows"],
                "tokens": before["tokens"], "calibration_samples": samples,
                "calibration_length": self.order.length}  # fmt: skip
        fields = ("bytes", "perplexity", "tokens_per_s", "peak_memory_bytes", "load_seconds", "eval")
        return {
            "schema": 1, "model": self.name, "methods": [one.name for one in self.order.methods],
            "libraries": libraries, "text": text,
            **{when: {name: step[name] for name in fields if name in step}
               for when, step in (("before", before), ("after", after))},
            **report.judge(before, after, self.gate, self.order.methods),
            "steps": [_told(step) for step in steps],
        }  # fmt: skip

    def _finish(self, found: dict[str, Any]) -> None:
        """The report goes into the folder, and the folder to its last name; nothing half-made has it."""
        made = self.partial / f"made-{len(self.order.methods) - 1}"
        final = self.folder if found["gate"]["passed"] else self.refused
        found["folder"] = str(final)
        report.write(found, made)
        if final == self.refused:
            shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        if found["gate"]["passed"]:
            shutil.rmtree(self.partial)


def _told(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step as the report has it: what was done, how long it took, and what it says of itself."""
    left_out = {"key", "libraries", "target", "folder", "kl", "greedy_agreement", "tokens", "windows"}
    kept = {name: value for name, value in step.items() if name not in left_out}
    if isinstance(kept.get("left_alone"), list):
        kept["left_alone"] = len(kept["left_alone"])
    return kept


def _identity(model: str) -> str:
    """A folder by what lies in it, a hub's model by its name."""
    path = Path(model)
    if not path.exists():
        return model
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return json.dumps([(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files])


def default_folder(model: str, methods: tuple[Method, ...]) -> Path:
    """./MODEL-METHODS, as the planner names it."""
    short = model.rstrip("/").rsplit("/", 1)[-1]
    return Path("-".join((short, *(one.name.replace(":", "-") for one in methods))))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Two calls on one folder: the second is refused."""
    with path.open("w") as file:
        if not lock(file.fileno()):
            raise InvalidInput(f"another call works on {path.parent}", hint="wait for it, or name another -o")
        yield
