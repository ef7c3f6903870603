"""vLLM as a process that memserve starts, drives and ends: same tokens, an adapter, and nothing left over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

import memserve
from memserve.errors import EngineFailed

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROMPTS = [[7, 8, 9, 10], [30] * 12, [500, 400, 300]]


def _of(folder: Path) -> list[str]:
    """The processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and b"serve" in words:
            found.append(path.parent.name)
    return found


def test_an_adapter_through_the_server_is_the_adapter_in_process(
    tiny: Path, adapter: tuple[Path, dict[str, Any]], greedy: Callable[..., list[list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One start proves the process, the key, the adapter's name as a model, and the end."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder, merged = adapter
    options = {"dtype": "float32", "max_model_len": 256, "enforce_eager": True, "adapter": str(folder)}
    with memserve.generator(str(tiny), backend="vllm", server=True, timeout=400, **options) as served:
        assert (served.capabilities.backend, served.capabilities.score) == ("vllm", True)
        assert _of(tiny)
        told = [list(one.token_ids or ()) for one in served.generate(PROMPTS, max_tokens=8)]
    assert told == greedy(tiny, PROMPTS, 8, merged)
    until(lambda: _of(tiny) == [], every=0.2)


def test_a_cache_that_cannot_hold_one_request_is_told_in_plain_words(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's own refusal, from its own log, at the end of a real start."""
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)  # an engine in this process sets it
    with pytest.raises(EngineFailed, match="KV cache does not hold one request") as caught:
        memserve.generator(str(tiny), backend="vllm", server=True, timeout=400, dtype="float32",
                           max_model_len=512, enforce_eager=True, kv_cache_memory_bytes=300_000)  # fmt: skip
    assert "--context" in str(caught.value)
