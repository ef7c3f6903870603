"""Which chat templates memserve can think, call and read calls with: python benchmarks/templates.py FOLDER

FOLDER holds *.jinja; the sdist of llama-cpp-python has seventy of published models in
vendor/llama.cpp/models/templates. Two calls (or one, where the template takes no more) go into a conversation
as the template writes them, and are read back out of the text.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from memserve.errors import MemserveError
from memserve.protocol import Request
from memserve.tokens import calling
from memserve.tokens.prompts import Prompts
from memserve.tokens.template import compiled

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": {
    "type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }}}}  # fmt: skip
ARGUMENTS = [{"city": "Paris", "days": 2, "tags": ["a", "b"]}, {"city": "12"}]
ASKED = {"role": "user", "content": "What is the weather?"}


class Characters:
    """A tokenizer of single characters, with one of the templates."""

    bos_token_id = eos_token_id = None

    def __init__(self, template: str) -> None:
        self.chat_template, self._compiled = template, compiled(template)

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: Any, *, tokenize: bool = False, **variables: Any) -> str:
        return str(
            self._compiled.render(messages=list(messages), bos_token="<BOS>", eos_token="<EOS>", **variables)
        )


def back(prompts: Prompts, family: calling.Family, count: int) -> str:
    """How many calls came back right; "not written" where the template leaves them out."""
    asked = calling.of(Request(prompt="x", tools=(TOOL,)), family, {})
    assert asked is not None
    ids = [f"functions.get_weather:{i}" if family.id else f"memserve{i}" for i in range(count)]
    made = [{"name": "get_weather", "arguments": one} for one in ARGUMENTS[:count]]
    calls = [{"id": own, "type": "function", "function": one} for own, one in zip(ids, made, strict=True)]
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    how = {**calling.offered([TOOL]), "add_generation_prompt": family.start}
    before = prompts._chat([ASKED], how)
    whole = prompts._chat([ASKED, said], {**how, "add_generation_prompt": False})
    shared = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(before))
    answer = whole[shared:]
    if "Paris" not in answer:
        return "not written"
    if family.start:  # what ends the turn is no part of an answer
        answer = answer[: answer.rfind("}") + 1]
    _, found = calling.read(answer, asked)
    right = [json.loads(one.arguments) for one in found] == ARGUMENTS[:count]
    return f"{count} of {count}" if right else "wrong"


def judged(path: Path) -> tuple[str, ...]:
    """A line of the table."""
    try:
        tokenizer: Any = Characters(path.read_text(encoding="utf-8"))
        prompts = Prompts(tokenizer, vocabulary=0x110000, context=None, path=path.name, backend="hf")
        prompts.prove()
        how, family = prompts.thinking, prompts.family
    except (MemserveError, ValueError) as error:
        return path.stem, "", "", f"refused: {str(error)[:60]}"
    thought = f"{how.family.name}, {how.switch or 'always'}" if how else ""
    if family is None:
        return path.stem, thought, "", ""
    told = "refused"
    for count in (2, 1):
        try:
            told = back(prompts, family, count)
        except MemserveError:
            continue
        if told != "wrong":
            break
    return path.stem, thought, family.name, told


def main() -> None:
    logging.disable(logging.WARNING)
    rows = [judged(path) for path in sorted(Path(sys.argv[1]).glob("*.jinja"))]
    for row in rows:
        columns = zip(row, (48, 28, 14, 12), strict=True)
        print("  ".join(word.ljust(width) for word, width in columns).rstrip())
    calls, thinking = [row[3] for row in rows if row[2]], sum(bool(row[1]) for row in rows)
    found = {"read back": sum(" of " in one for one in calls), "wrong": calls.count("wrong")}
    found |= {"leave earlier calls out": calls.count("not written"), "refuse them": calls.count("refused")}
    told = ", ".join(f"{count} {what}" for what, count in found.items())
    print(f"\n{len(rows)} templates, {thinking} that think, {len(calls)} with tools: {told}")


if __name__ == "__main__":
    main()
