"""llama.cpp on SmolLM2's own GGUF file: what the room promises beyond the suite."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import InvalidInput, ModelUnreadable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.engine("llamacpp"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
FOLDER = HOME / "weights-1" / "smollm2-gguf"
TALKING = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<tool_call><|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% for call in m.tool_calls or [] %}{{ '<tool_call>\n' + call.function | tojson + '\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
    "additionalProperties": False}}}  # fmt: skip


@pytest.fixture(scope="module")
def generator() -> Iterator[memserve.protocol.Generator]:
    with memserve.generator(str(FOLDER), backend="llamacpp", n_ctx=512) as held:
        yield held


def test_a_folder_with_one_file_is_that_file(generator: memserve.protocol.Generator) -> None:
    with memserve.generator(str(next(FOLDER.glob("*.gguf"))), backend="llamacpp", n_ctx="512") as named:
        assert named.capabilities.context == generator.capabilities.context == 512


def test_the_files_own_template_is_rendered(generator: memserve.protocol.Generator) -> None:
    bare, chat = generator.count_tokens(memserve.Raw("Say hello.")), generator.count_tokens("Say hello.")
    assert chat - bare > 10


def test_a_choice_is_kept_to(generator: memserve.protocol.Generator) -> None:
    answer = generator.generate("Is water wet?", choices=["certainly", "by no means"], max_tokens=16)
    assert answer.text in ("certainly", "by no means")


def test_a_schema_is_kept_to(generator: memserve.protocol.Generator) -> None:
    import json

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    answer = generator.generate("Give a number.", schema=schema, max_tokens=48)
    assert isinstance(json.loads(answer.text)["n"], int)


def test_answers_do_not_depend_on_what_was_asked_before(generator: memserve.protocol.Generator) -> None:
    """The cache of the longest shared prefix is reused: it must not show."""
    prompts = ["Count to five.", "Count to seven.", "Where is Oslo?"]
    first = [generator.generate(one, max_tokens=10).token_ids for one in prompts]
    assert [generator.generate(one, max_tokens=10).token_ids for one in reversed(prompts)] == first[::-1]


def test_options_are_llamas_own_and_a_wrong_one_names_its_neighbour() -> None:
    with pytest.raises(Unsupported, match="did you mean n_ctx"):
        memserve.generator(str(FOLDER), backend="llamacpp", n_ctxx=512)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\0" * 64, b"not a model at all" * 10])
def test_a_broken_file_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)
    with pytest.raises(ModelUnreadable, match=r"broken\.gguf"):
        memserve.generator(str(broken), backend="llamacpp")


def test_a_cut_file_is_told_by_name(tmp_path: Path) -> None:
    whole = next(FOLDER.glob("*.gguf")).read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelUnreadable, match=r"cut\.gguf"):
        memserve.generator(str(tmp_path / "cut.gguf"), backend="llamacpp")


def test_a_folder_without_gguf_files_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises((ModelUnreadable, InvalidInput), match="must hold one GGUF file"):
        memserve.generator(str(tmp_path), backend="llamacpp")


def test_a_required_call_comes_and_its_result_is_read() -> None:
    """The file's template takes no tools, so one that does stands in for it."""
    import json

    from memserve.client.generation import Generator
    from memserve.client.handle import for_engine
    from memserve_llamacpp.engine import load
    from memserve_llamacpp.generating import Generating

    llama = load(str(next(FOLDER.glob("*.gguf"))), {"n_ctx": 1024})
    llama.metadata["tokenizer.chat_template"] = TALKING
    with Generator(engine := Generating(llama, "smollm2"), for_engine(engine, 1)) as held:
        assert held.capabilities.tools
        answer = held.generate("The weather in Paris?", tools=[TOOL], tool_choice="required", max_tokens=80)
        assert answer.finish_reason == "tool_calls"
        assert answer.text is None
        assert set(json.loads(answer.tool_calls[0].arguments)) == {"city"}
        *_, last = held.stream("The weather in Paris?", tools=[TOOL], tool_choice="required", max_tokens=80)
        assert last.tool_calls == answer.tool_calls
