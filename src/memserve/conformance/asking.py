"""What the tests ask, what they may expect of an answer, and what proves it."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from memserve.errors import UnknownName
from memserve.protocol import Capabilities, Delta, Raw
from memserve.registry import GROUP


@dataclass(frozen=True)
class Oracle:
    """Says which token ids a prompt must become."""

    tokenizer: Any
    template: str | None
    special: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path | None) -> Oracle | None:
        """None where the checkpoint has no tokenizer.json or the readers are not installed."""
        if folder is None or not (folder / "tokenizer.json").exists():
            return None
        try:
            from tokenizers import Tokenizer
        except ImportError:
            return None
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _json(folder / "tokenizer_config.json")
        jinja = folder / "chat_template.jinja"
        template = jinja.read_text(encoding="utf-8") if jinja.exists() else config.get("chat_template")
        return cls(tokenizer, template if isinstance(template, str) else None, _special(config))

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Plain text, with the BOS that the tokenizer itself adds, but never two."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=special).ids)
        bos = self.bos
        return ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids back to text, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @property
    def bos(self) -> int | None:
        """The id of the first token of every text, where the checkpoint has one."""
        word = self.special.get("bos_token")
        found = self.tokenizer.token_to_id(word) if word else None
        return None if found is None else int(found)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        """The chat template applied; None without a template or without jinja2."""
        if self.template is None:
            return None
        try:
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            return None
        world = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        world.filters["tojson"] = lambda value, **kw: json.dumps(value, ensure_ascii=False, **kw)
        template = world.from_string(self.template)
        return template.render(messages=list(messages), add_generation_prompt=True, **self.special)

    def takes(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the template knows all roles of a conversation; some raise for a system's."""
        from jinja2 import TemplateError

        try:
            return self.render(messages) is not None
        except TemplateError:
            return False

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """The ids that a conversation must become: the rendered template, nothing added."""
        text = self.render(messages)
        return None if text is None else self.encode(text, special=False)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    named = {key: config.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    texts = {key: v["content"] if isinstance(v, dict) else v for key, v in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


_STATUSES = frozenset({"notimpl", "notyet", "never"})
_EXCUSES = frozenset({"skip", "skipif", "xfail"})
_HOME = Path(__file__).parent


def rows_of(backend: str) -> list[dict[str, str]]:
    """The rows of that backend's file, checked; none where it has no file."""
    entry = next((e for e in entry_points(group=GROUP) if e.name == backend), None)
    found = find_spec(entry.module) if entry else None
    if found is None or found.origin is None:
        return []
    path = Path(found.origin).parent / "conformance.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for row in rows:
        if row.get("status") not in _STATUSES or not row.get("reason") or not row.get("test"):
            raise pytest.UsageError(
                f"{path}: each row needs test, reason and a status of {sorted(_STATUSES)}"
            )
    return [row for row in rows if row.get("backend", backend) == backend]


class Expectations:
    """Marks the tests that the backend's file names, and refuses names that match none."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """A backend that is not named, or that nobody knows, is one line and not one for every test."""
        from memserve.conformance.report import Target

        if session.config.option.collectonly:
            return
        try:
            Target.from_config(session.config).tasks()
        except UnknownName as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config,
                                      items: list[pytest.Item]) -> Generator[None]:  # fmt: skip
        """A whole run must know every name in the file; a part of it only marks what it has."""
        collected = [item for item in items if _HOME in item.path.parents]
        yield
        _untouched(config, collected, items)
        self._mark(config, items)

    @staticmethod
    def _mark(config: pytest.Config, items: list[pytest.Item]) -> None:
        mine = {item: _name(item) for item in items if _HOME in item.path.parents}
        for row in rows_of(str(config.getoption("--backend"))):
            hits = [item for item, name in mine.items() if name in (row["test"], f"{row['test']}")]
            reason = f"{row['status']}: {row['reason']}"
            for item in hits:
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
            if not hits and row["test"] not in known_tests():
                raise pytest.UsageError(f"conformance.json names a test that does not exist: {row['test']}")


def _untouched(config: pytest.Config, collected: list[pytest.Item], items: list[pytest.Item]) -> None:
    """Nobody's conftest takes a test out or excuses it; a person on the command line may choose a part."""
    chosen = any(config.getoption(word, None) for word in ("-k", "-m", "--deselect", "--lf", "--sw", "--nf"))
    gone = [] if chosen else [item for item in collected if item not in items]
    excused = [item for item in collected if any(mark.name in _EXCUSES for mark in item.iter_markers())]
    for what, found in (("taken out", gone), ("excused", excused)):
        if found:
            raise pytest.UsageError(
                f"a conftest or plug-in has {what} {len(found)} tests, such as {_name(found[0])}: "
                "what a backend cannot do is said in its conformance.json"
            )


def _name(item: pytest.Item) -> str:
    return f"{item.path.name}::{item.originalname if isinstance(item, pytest.Function) else item.name}"


def known_tests() -> frozenset[str]:
    """Every test of the suite, read from its source, so that none can be left out unseen."""
    import ast

    return frozenset(
        f"{path.name}::{node.name}"
        for path in _HOME.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


BROKEN = "\ufffd"
"""What a tokenizer shows of half a character."""
WORDS = [
    "river", "stone", "lamp", "green", "seven", "window", "apple", "under", "paper", "cloud", "bridge",
    "salt",
]  # fmt: skip


def need(can: Capabilities, *fields: str) -> None:
    """Skip, naming the first capability that the backend does not have."""
    for field in fields:
        if not getattr(can, field):
            pytest.skip(f"capability {field}: off")


def question(number: int, length: int = 4) -> str:
    """Different numbers and lengths give different prompts; longer ones have more tokens."""
    words = [WORDS[(number * 5 + i * (number + 3)) % len(WORDS)] for i in range(length)]
    return f"Say something about number {number}: " + " ".join(words)


def mixed(count: int) -> list[str]:
    """Prompts of mixed length, each different."""
    return [question(n, 2 + (n * 7) % 23) for n in range(count)]


def growing(count: int) -> list[str]:
    """Prompts whose token counts grow strictly, so that an answer tells which prompt it belongs to."""
    return ["Repeat:" + " and one more word" * n for n in range(1, count + 1)]


def worded(can: Capabilities, prompt: Any) -> Any:
    """A prompt of words as this backend takes it: a string, or Raw where it only completes texts."""
    if isinstance(prompt, list) and any(isinstance(one, str) for one in prompt):
        return [worded(can, one) for one in prompt]
    if not isinstance(prompt, str) or can.chat:
        return prompt
    if not can.raw:
        pytest.skip("capability chat: off, and raw text is not taken either")
    return Raw(prompt)


def limited(can: Capabilities, max_tokens: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with a limit, where the backend takes one."""
    return {"max_tokens": max_tokens, **settings} if can.max_tokens else settings


def answer(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> Any:
    """One answer, greedy unless the settings say otherwise, or a list of them."""
    can = generator.capabilities
    return generator.generate(worded(can, prompt), **limited(can, max_tokens, settings))


async def awaited(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> Any:
    """The same, awaited."""
    can = generator.capabilities
    return await generator.agenerate(worded(can, prompt), **limited(can, max_tokens, settings))


def streamed(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> list[Delta]:
    """The pieces of a streamed answer."""
    can = generator.capabilities
    need(can, "stream")
    return list(generator.stream(worded(can, prompt), **limited(can, max_tokens, settings)))


async def astreamed(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> list[Delta]:
    """The pieces of an awaited stream."""
    can = generator.capabilities
    deltas = generator.astream(worded(can, prompt), **limited(can, max_tokens, settings))
    return [delta async for delta in deltas]


def said(one: Any) -> str:
    """The text of an answer or a sample; None, where nothing was sent, is no text."""
    return one.text or ""


def joined(pieces: list[Delta]) -> str:
    """The text that the pieces of a stream make."""
    return "".join(piece.text for piece in pieces)


def heat(generator: Any, wanted: float = 1.5) -> float:
    """A temperature that makes answers differ, as far as the backend takes it."""
    most = generator.capabilities.max_temperature
    return wanted if most is None else min(wanted, float(most))


def long_answer(generator: Any, least: int = 6) -> tuple[str, Any]:
    """One prompt and its greedy answer, readable enough at its start to cut a stop string from."""
    found: list[tuple[str, Any]] = []
    for numbers in (range(1), range(1, 6), range(6, 48)):
        prompts = [question(number) for number in numbers]
        for prompt, got in zip(prompts, answer(generator, prompts, 24), strict=True):
            start = said(got)[: least + 2]
            if len(start.strip()) >= least and BROKEN not in start:
                found.append((prompt, got))
                if _inside(said(got)):
                    return prompt, got
    if found:
        return found[0]
    pytest.fail("no prompt of 48 gave a readable answer of 24 tokens: is the text returned at all?")


def piece(text: str) -> str:
    """A few characters from inside a text whose first sight is not at its start."""
    found = _inside(text)
    if found is None:
        pytest.skip(f"capability stop: this model only repeats itself, {text[:12]!r}")
    return found


def _inside(text: str) -> str | None:
    whole = text.partition(BROKEN)[0]
    for size in (3, 4, 5, 2, 1):
        for at in range(max(1, len(whole) // 3), len(whole) - size + 1):
            part = whole[at : at + size]
            if part.strip() and text.find(part) > 0:
                return part
    return None


def common(texts: list[str]) -> str:
    """The character that most of these texts say, to be used as a stop string."""
    letters = [letter for letter in "".join(texts) if letter.strip() and letter != BROKEN]
    if not letters:
        pytest.fail("no answer holds a readable character")
    return max(set(letters), key=lambda letter: sum(letter in text for text in texts))
