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

from memserve.compress import checks, interpreter, report, verdict
from memserve.compress.text import Text
from memserve.engines.making import Library, Method, table
from memserve.errors import DoesNotFit, InvalidInput
from memserve.lock import lock

REPORT = "report.json"


@dataclass(frozen=True)
class Job:
    """What is to be made of which model, and where it goes."""

    order: checks.Order
    name: str
    """The model as it was named."""
    folder: Path
    text: Text
    gate: verdict.Gate
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
        kept = self.partial / "original"
        kept.mkdir(exist_ok=True)
        original = name == "original"
        own = library.judges and not original
        worker = library.worker if own else "memserve.compress.worker.measure"
        job = {
            "worker": worker, "do": "measure", "model": model, "original": original, "kept": str(kept),
            "text": str(self.partial / "judged.txt"), "window": self.order.window,
            "windows": self.order.windows, "questions": list(self.questions),
        }  # fmt: skip
        return self._step(name, library, job, [_identity(model), self.text.judged, after])

    def _make(self, method: Method, number: int, source: str, after: str) -> dict[str, Any]:
        name = f"make {method.name}"
        target = self.partial / f"made-{number}"
        job = {
            "worker": method.library.worker, "do": method.kind if method.prunes else "make", "model": source,
            "kind": method.kind, "method": method.name, "amount": method.amount, "target": str(target),
            "text": str(self.partial / "calibration.txt"), "length": self.order.length,
            "samples": (self.order.samples or method.samples) if method.samples else 0,
            "group": method.group(self.order.result) if not method.prunes else None,
            "left_alone": [row["pattern"] for row in table()["left_alone"]],
            "file": f"{self.folder.name}.gguf",
        }  # fmt: skip
        wanted = [after, hashlib.sha256(self.text.calibration.encode()).hexdigest()]
        return {"target": str(target), **self._step(name, method.library, job, wanted, clear=target)}

    def _step(self, name: str, library: Library, job: Mapping[str, Any], wanted: list[str], *,
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
        task = {**job, "name": name, "distributions": library.distributions}
        answer = interpreter.work(python, task, self.partial / "work", library.env)
        done = {"name": name, "key": key, **answer}
        file.with_suffix(".new").write_text(json.dumps(done), encoding="utf-8")
        file.with_suffix(".new").replace(file)
        return done

    def _report(self, before: Mapping[str, Any], after: Mapping[str, Any],
                steps: list[dict[str, Any]]) -> dict[str, Any]:  # fmt: skip
        judged = verdict.judge(before, after, self.gate)
        libraries = {name: release for step in steps for name, release in step["libraries"].items()}
        calibrated = max(
            (self.order.samples or one.samples) if one.samples else 0 for one in self.order.methods
        )
        text = {**self.text.to_dict(), "window": self.order.window, "windows": before["windows"],
                "tokens": before["tokens"], "calibration_samples": calibrated,
                "calibration_length": self.order.length}  # fmt: skip
        fields = ("bytes", "perplexity", "tokens_per_s", "peak_memory_bytes", "load_seconds", "eval")
        return {
            "schema": 1, "model": self.name, "methods": [one.name for one in self.order.methods],
            "libraries": libraries, "text": text,
            "before": {name: before[name] for name in fields if name in before},
            "after": {name: after[name] for name in fields if name in after}, **judged,
            "steps": [_told(step) for step in steps], "advice": verdict.advice(judged, self.order.methods),
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
