"""One checkpoint from start to end: measure, make, measure again, judge; what is done is not done twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve import cli, files
from memserve.compress import checks, interpreter, report
from memserve.compress.text import Text, sha256
from memserve.engines.making import Method, install
from memserve.errors import DoesNotFit, InvalidInput
from memserve.files import lock
from memserve.speed import losses

REPORT = "report.json"
TOLD = ("bytes", "perplexity", "tokens_per_s", "peak_memory_bytes", "load_seconds", "eval")
"""What a measurement says in the report."""
STEP = (
    "name",
    "seconds",
    "cpu_seconds",
    "peak_memory_bytes",
    "influence",
    "kept",
    "intermediate_size",
    "left_alone",
)


@dataclass(frozen=True)
class Job:
    """What is to be made of which model, and where it goes."""

    order: checks.Order
    folder: Path
    text: Text
    gate: report.Gate
    pythons: interpreter.Interpreters
    questions: tuple[dict[str, Any], ...] = ()

    @property
    def partial(self) -> Path:
        """Where everything lies until it is judged."""
        return self.folder.with_name(self.folder.name + ".partial").absolute()

    @property
    def refused(self) -> Path:
        """What a result is called that its gate refused."""
        return self.folder.with_name(self.folder.name + ".refused")

    def run(self) -> dict[str, Any]:
        """The report; the folder has its last name when this returns."""
        if found := self._made_before(self.folder if self.folder.exists() else self.refused):
            return found
        if self.folder.exists():
            raise InvalidInput(f"{self.folder} exists, and is not what this call makes",
                               hint="name another folder with -o, or move it away")  # fmt: skip
        checks.refuse(checks.run(self.order, self.folder))
        if lacks := checks.lacking(self.order):
            raise DoesNotFit(lacks)
        (self.partial / "original").mkdir(parents=True, exist_ok=True)
        with alone(self.partial / "lock"):
            for name, text in (("calibration", self.text.calibration), ("judged", self.text.judged)):
                (self.partial / f"{name}.txt").write_text(text, encoding="utf-8")
            return self._finish(self._steps())

    @property
    def made_of(self) -> str:
        """What the figures follow from, hashed: not the gate."""
        order = self.order
        sizes = order.samples, order.length, order.window, order.windows
        methods = [(one.name, one.library) for one in order.methods]
        words = _identity(order.name), self.text.to_dict(), self.questions, methods, sizes
        return sha256(json.dumps(words, sort_keys=True))

    def _made_before(self, place: Path) -> dict[str, Any] | None:
        """What lies there of the same, at this call's gate."""
        with suppress(OSError, ValueError, AttributeError):
            found: dict[str, Any] = json.loads((place / REPORT).read_text(encoding="utf-8"))
            if found.get("made_of") == self.made_of:
                cli.tell(f"{place} is there already")
                found["gate"] = self.gate.judges(found["after"]["bytes"], found["loss"], found["speedup"])
                if found["gate"]["passed"] and place == self.refused:
                    found["folder"] = str(self.folder)
                    report.write(found, place)
                    place.rename(self.folder)
                return found
        return None

    def _steps(self) -> dict[str, Any]:
        """The original measured, each method applied to what the one before it left, the result measured."""
        steps = [before := self._measure("original", self.order.name, _identity(self.order.name))]
        place, key = before["folder"], before["key"]
        for number, method in enumerate(self.order.methods):
            steps.append(made := self._make(method, number, place, key))
            place, key = made["target"], made["key"]
        steps.append(after := self._measure("result", place, key))
        text = {**self.text.to_dict(), "window": self.order.window, "windows": before["windows"],
                "tokens": before["tokens"], "calibration_length": self.order.length,
                "calibration_samples": max(step.get("samples", 0) for step in steps)}  # fmt: skip
        both = {when: {name: step[name] for name in TOLD if name in step}
                for when, step in (("before", before), ("after", after))}  # fmt: skip
        return {
            "schema": 1, "made_of": self.made_of,
            "model": self.order.name, "methods": [one.name for one in self.order.methods],
            "libraries": {name: release for step in steps for name, release in step["libraries"].items()},
            "text": text, **both, **report.judge(before, after, self.gate, self.order.methods),
            "steps": [{name: step[name] for name in STEP if name in step} for step in steps],
        }  # fmt: skip

    def _measure(self, name: str, model: str, after: str) -> dict[str, Any]:
        """The original by transformers; a result by its library where transformers does not read it."""
        method, original = self.order.methods[-1], name == "original"
        own = method.library.get("judges") and not original
        worker = method.library["worker"] if own else "memserve.compress.worker.measure"
        return self._step(name, method, after + self.text.judged, {
            "worker": worker, "do": "measure", "model": model, "original": original,
            "kept": str(self.partial / "original"), "text": str(self.partial / "judged.txt"),
            "window": self.order.window, "windows": self.order.windows, "questions": self.questions,
        })  # fmt: skip

    def _make(self, method: Method, number: int, source: str, after: str) -> dict[str, Any]:
        target = self.partial / f"made-{number}"
        return self._step(f"make {method.name}", method, after + self.text.calibration, {
            "do": method.kind if method.prunes else "make", "model": source, "kind": method.kind,
            "library": method.row["library"], "method": method.name, "amount": method.amount,
            "target": str(target), "text": str(self.partial / "calibration.txt"), "length": self.order.length,
            "samples": self.order.samples_of(method), "group": method.group(self.order.model),
            "file": f"{self.folder.name}.gguf",
        })  # fmt: skip

    def _step(self, name: str, method: Method, after: str, job: Mapping[str, Any]) -> dict[str, Any]:
        """The kept answer of a step whose inputs are the same, or the work itself."""
        key = sha256(json.dumps([job, after, method.library], sort_keys=True))
        file = self.partial / f"{name.replace(' ', '-').replace(':', '-')}.json"
        with suppress(OSError, ValueError):
            done: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            if done["key"] == key:
                cli.tell(f"{name}: done before")
                return done
        if "target" in job:
            shutil.rmtree(job["target"], ignore_errors=True)
            Path(job["target"]).mkdir()
        cli.tell(f"{name} ({method.row['library']}) ...")
        python = self.pythons.having(method.library)
        if python is None:
            raise DoesNotFit(f"{method.row['library']} is not installed", hint=install(method.library))
        answer = interpreter.work(python, method.library, {**job, "name": name}, self.partial / "work")
        done = {"name": name, "key": key, "target": job.get("target"), **answer}
        files.write(file, json.dumps(done))
        return done

    def _finish(self, found: dict[str, Any]) -> dict[str, Any]:
        """The report goes into the folder, and the folder to its last name; nothing half-made has it."""
        made, passed = self.partial / f"made-{len(self.order.methods) - 1}", found["gate"]["passed"]
        final = self.folder if passed else self.refused
        found["folder"] = str(final)
        report.write(found, made)
        self._remember(found)
        if not passed:
            shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        shutil.rmtree(self.partial)
        return found

    def _remember(self, found: Mapping[str, Any]) -> None:
        """What was lost here counts before what others published."""
        text, before, after = found["text"], found["before"]["perplexity"], found["after"]["perplexity"]
        said = f"perplexity, {text['windows']} windows of {text['window']} tokens of {text['file']}"
        with suppress(
            InvalidInput
        ):  # a folder of settings that cannot be written to costs nobody a checkpoint
            losses.keep(losses.Accuracy(
                "+".join(found["methods"]), self.order.model.id, said, before, after,
                source=str(Path(found["folder"]).absolute() / REPORT), perplexity=True, own=True,
            ))  # fmt: skip


def _identity(model: str) -> str:
    """A folder by what lies in it, a hub's model by its name."""
    path = Path(model)
    files = sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else []
    return json.dumps([model, *((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files)])


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Two calls on one folder: the second is refused."""
    with path.open("w") as file:
        if not lock(file.fileno()):
            raise InvalidInput(f"another call works on {path.parent}", hint="wait for it, or name another -o")
        yield
