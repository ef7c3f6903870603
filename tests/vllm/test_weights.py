"""Adapters, quantized checkpoints and two ranks, on the real engine, give what they must."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import packed_hf
import pytest

import memserve
from memserve.errors import InvalidInput
from memserve_vllm import starting as adapters

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROMPTS = [[7, 8, 9, 10], [30] * 12, [500, 400, 300]]
engine = [pytest.mark.engine("vllm"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def _marked(test: Any) -> Any:
    for mark in engine:
        test = mark(test)
    return test


def _open(folder: Path, **options: Any) -> memserve.protocol.Generator:
    return memserve.generator(str(folder), backend="vllm", max_model_len=256, **options)


@_marked
def test_an_adapter_answers_as_merged_weights_do(
    tiny: Path, adapter: tuple[Path, dict[str, Any]], greedy: Callable[..., list[list[int]]]
) -> None:
    folder, merged = adapter
    wanted = greedy(tiny, PROMPTS, 8, merged)
    assert wanted != greedy(tiny, PROMPTS, 8)
    with _open(tiny, dtype="float32", adapter=str(folder)) as adapted:
        assert [list(one.token_ids) for one in adapted.generate(PROMPTS, max_tokens=8)] == wanted
        whole = adapted.generate(PROMPTS[0], max_tokens=8).text
        assert "".join(piece.text for piece in adapted.stream(PROMPTS[0], max_tokens=8)) == whole
        assert adapted.identity["adapter"] == str(folder)


@_marked
@pytest.mark.parametrize("kind", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_two_ranks_give_the_tokens_of_one(
    kind: str, tiny: Path, greedy: Callable[..., list[list[int]]]
) -> None:
    with _open(tiny, dtype="float32", **{kind: 2}) as split:
        config = split._engine._llm.llm_engine.vllm_config.parallel_config  # type: ignore[attr-defined]
        assert (getattr(config, kind), config.world_size) == (2, 2)
        told = [list(one.token_ids) for one in split.generate(PROMPTS, max_tokens=8)]
    assert told == greedy(tiny, PROMPTS, 8)


@_marked
@pytest.mark.parametrize("pack", ["gptq", "awq"])
def test_quantized_checkpoints_say_what_their_weights_say(pack: str, tiny: Path) -> None:
    """Against the same weights unpacked again, in the same bfloat16: rounding differs, the words do not."""
    text = ("the river runs past the old", " stone bridge and seven green lamps")
    getattr(packed_hf, pack)(tiny)
    assert json.loads((tiny / "config.json").read_text())["quantization_config"]["quant_method"] == pack
    with _open(tiny, dtype="bfloat16") as packed:
        quantized = packed.score([text])[0]
    packed_hf.unpacked(tiny)
    with _open(tiny, dtype="bfloat16") as plain:
        wanted = plain.score([text])[0]
    assert quantized.tokens == wanted.tokens > 5
    assert abs(quantized.logprob - wanted.logprob) < 0.05 * wanted.tokens


@pytest.mark.parametrize(("rank", "room"), [(1, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_an_adapters_rank_decides_its_room(tmp_path: Path, rank: int, room: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank}))
    assert adapters.limits(str(tmp_path)) == {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}


@pytest.mark.parametrize(
    ("content", "meaning"),
    [(None, "names no rank"), ("{", "names no rank"), ('{"peft_type": "LORA"}', "names no rank"),
     ('{"peft_type": "IA3", "r": 4}', "not IA3"), ('{"r": 1024}', "takes up to 512"),
     ("[]", "names no rank")],
)  # fmt: skip
def test_an_adapter_that_cannot_be_is_refused_before_the_start(
    tmp_path: Path, content: str | None, meaning: str
) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(InvalidInput, match=meaning):
        adapters.limits(str(tmp_path))


def test_an_adapters_folder_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder"):
        adapters.limits(str(tmp_path / "none"))
