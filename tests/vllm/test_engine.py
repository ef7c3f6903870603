"""What only a real vLLM can prove: the planner's KV cache is the engine's, to the block."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import InvalidInput, ModelUnreadable, Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
MODEL = HOME / "weights-1" / "tiny"


@pytest.fixture(scope="module")
def generator() -> Iterator[memserve.protocol.Generator]:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    with memserve.generator(str(MODEL), backend="vllm", dtype="float32", max_model_len=512) as held:
        yield held


def test_the_planner_knows_the_kv_cache_to_the_block(generator: memserve.protocol.Generator) -> None:
    config = generator._engine._llm.llm_engine.vllm_config.cache_config  # type: ignore[attr-defined]
    command = f"vllm serve {MODEL} --dtype float32 --max-model-len 512 --block-size {config.block_size}"
    planned = memserve.plan.check(f"{command} --kv-cache-memory-bytes 1G", "cpu")
    assert planned.kv_cache_tokens == config.num_gpu_blocks * config.block_size


def test_vllms_own_settings_are_honoured(generator: memserve.protocol.Generator) -> None:
    free = generator.generate("Say a word.", max_tokens=8)
    bound = generator.generate("Say a word.", max_tokens=8, vllm_allowed_token_ids=[300])
    assert bound.token_ids == (300,) * 8
    assert free.token_ids != bound.token_ids


def test_a_shared_prefix_is_computed_once(generator: memserve.protocol.Generator) -> None:
    """vLLM's blocks hold 128 tokens on a CPU: two of them are shared."""
    prefix = [100 + place % 300 for place in range(300)]
    first = generator.generate([*prefix, 5], max_tokens=2)
    again = generator.generate([*prefix, 6], max_tokens=2)
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, 256)


def test_unknown_engine_arguments_are_refused_with_a_neighbour() -> None:
    with pytest.raises(Unsupported, match="did you mean enforce_eager"):
        memserve.generator(str(MODEL), backend="vllm", enforce_eagre=True)


def test_a_folder_without_a_model_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match=r"no config\.json"):
        memserve.generator(str(tmp_path), backend="vllm")


def test_a_model_is_needed() -> None:
    with pytest.raises(InvalidInput, match="needs a model"):
        memserve.generator(None, backend="vllm")
