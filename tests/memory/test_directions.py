"""A flag that is counted moves its figures the right way: any model, card and release."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from starts import config

from memserve.plan import check
from memserve.plan.plan import Plan

MODELS = (
    "Llama-3.1-8B-Instruct", "Qwen2.5-14B-Instruct-AWQ", "Qwen3-30B-A3B-Instruct-2507-FP8", "gemma-2-9b-it",
    "gemma-3-4b-it", "DeepSeek-V2-Lite-Chat", "Qwen3.5-9B", "Qwen3-VL-8B-Instruct", "Qwen2.5-VL-7B-Instruct",
    "gpt-oss-120b", "Mixtral-8x7B-v0.1", "Qwen3-Embedding-0.6B", "phi-2", "Llama-4-Scout-17B-16E-Instruct",
    "Kimi-Linear-48B-A3B-Instruct-AWQ-4bit", "Qwen3.6-35B-A3B-NVFP4",
)  # fmt: skip
CARDS = {
    "vllm": ("L4", "RTX3090", "RTX5090", "A100-80GB", "H100", "B200", "MI300X"),
    "ascend": ("910B2", "A3"), "sglang": ("L4", "RTX4090", "A100-80GB", "H100", "B200"),
}  # fmt: skip
RELEASES = {
    "vllm": ("0.6.6", "0.8.5", "0.10.2", "0.11.0", "0.12.0", "0.16.0", "0.19.1", "0.20.1", "0.22.1", "0.25.1",
             "0.27.0", "0.29.0", "0.33.0"),
    "ascend": ("0.11.0", "0.18.0", "0.21.0rc1", "0.23.0"), "sglang": ("0.4.3", "0.4.8", "0.5.2", "0.5.9"),
}  # fmt: skip
VALUES = {
    "context": (2048, 4096, 8192, 20_000, 32_768), "share": (0.5, 0.7, 0.8, 0.9, 0.95), "ranks": (1, 2, 4),
    "sequences": (4, 64, 256, 512), "batch": (1024, 2048, 4096, 8192), "stages": (1, 2),
}  # fmt: skip
SPELLED = {
    "vllm": ("--max-model-len", "--gpu-memory-utilization", "--tensor-parallel-size", "--max-num-seqs",
             "--max-num-batched-tokens", "--pipeline-parallel-size"),
    "sglang": ("--context-length", "--mem-fraction-static", "--tp-size", "--max-running-requests",
               "--chunked-prefill-size", "--pp-size"),
}  # fmt: skip


class Start(NamedTuple):
    """A deployment, and how its command is written."""

    engine: str
    release: str
    card: str
    model: str
    values: dict[str, float]

    def plan(self, *more: str, **changed: float) -> Plan:
        """What is told of it with these words more."""
        server = ("python", "-m", "sglang.launch_server", "--model-path")
        begin = server if self.engine == "sglang" else ("vllm", "serve")
        flags = dict(zip(VALUES, SPELLED.get(self.engine, SPELLED["vllm"]), strict=True))
        said = {**self.values, **changed}
        words = [word for name, value in said.items() for word in (flags[name], str(value))]
        return check([*begin, path(self.model), *words, *more], f"8x{self.card}", engine_version=self.release)


@cache
def path(name: str) -> str:
    file = Path(tempfile.mkdtemp(prefix="memserve-directions-")) / "config.json"
    file.write_text(json.dumps(config(name)), encoding="utf-8")
    return str(file)


def starts(*engines: str) -> st.SearchStrategy[Start]:
    others = {name: st.sampled_from(VALUES[name]) for name in ("share", "ranks", "sequences", "batch")}
    values = st.fixed_dictionaries({"context": st.sampled_from(VALUES["context"])}, optional=others)
    return st.sampled_from(engines or tuple(CARDS)).flatmap(
        lambda engine: st.builds(
            Start, st.just(engine), st.sampled_from(RELEASES[engine]), st.sampled_from(CARDS[engine]),
            st.sampled_from(MODELS), values,
        )
    )  # fmt: skip


def weights(plan: Plan) -> float:
    return (plan.memory_gib_per_card or {})["weights"]


def peak(plan: Plan) -> float:
    return (plan.memory_gib_per_card or {})["activation"]


def tokens(plan: Plan) -> float:
    return plan.kv_cache_tokens or 0


def starts_at_all(plan: Plan) -> float:
    return float(plan.outcome == "runs")


Figure = Callable[[Plan], float]
RAISED: dict[str, dict[Figure, int]] = {
    "context": {starts_at_all: -1, peak: 1}, "share": {tokens: 1}, "ranks": {weights: -1},
    "sequences": {tokens: -1, peak: 1}, "batch": {peak: 1}, "stages": {weights: -1},
}  # fmt: skip
"""The figures that a larger value raises (1) or lowers (-1), or leaves as they were."""
NO_PICTURES = '{"image": 0, "video": 0}'
ADDED: dict[tuple[str, ...], dict[Figure, int]] = {
    ("--enforce-eager",): {tokens: 1}, ("--cpu-offload-gb", "2"): {weights: -1},
    ("--enable-lora", "--max-lora-rank", "32"): {weights: 1, tokens: -1},
    ("--language-model-only",): {weights: -1, peak: -1}, ("--skip-mm-profiling",): {peak: -1},
    ("--limit-mm-per-prompt", '{"image": 1, "video": 0}'): {peak: -1},
    ("--limit-mm-per-prompt", NO_PICTURES): {peak: -1}, ("--quantization", "fp8"): {weights: -1},
}  # fmt: skip


def moved(before: Plan, after: Plan, ways: dict[Figure, int]) -> None:
    for figure, way in ways.items():
        assert way * (figure(after) - figure(before)) >= -1e-6, figure.__name__


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", RAISED)
@given(data=st.data())
@settings(max_examples=25)
def test_a_larger_value_moves_what_it_decides(name: str, data: st.DataObject) -> None:
    start = data.draw(starts())
    low, high = sorted(data.draw(st.permutations(VALUES[name]))[:2])
    ways = RAISED[name]
    moved(start.plan(**{name: low}), start.plan(**{name: high}), ways)


@given(start=starts(), data=st.data())
@settings(max_examples=25)
def test_a_longer_context_never_holds_more_sequences(start: Start, data: st.DataObject) -> None:
    low, high = sorted(data.draw(st.permutations(VALUES["context"]))[:2])
    few, many = tokens(start.plan(context=high)) / high, tokens(start.plan(context=low)) / low
    assert few <= many + 0.1  # a block of a hybrid model


@pytest.mark.sampled(2)
@pytest.mark.parametrize("words", ADDED, ids=lambda words: " ".join(words))
@given(data=st.data())
@settings(max_examples=20)
def test_a_flag_moves_what_it_decides(words: tuple[str, ...], data: st.DataObject) -> None:
    start = data.draw(starts("vllm", "ascend"))
    moved(start.plan(), start.plan(*words), ADDED[words])


@given(start=starts("vllm"))
@settings(max_examples=40)
def test_an_8_bit_cache_holds_twice_the_tokens(start: Start) -> None:
    """But for recurrent states, which stay as wide."""
    pool = ("--kv-cache-memory-bytes", str(8 << 30))
    wide = start.plan(*pool)
    assume(tokens(wide) and not any(b.mixer.kind in ("linear", "mamba") for b in wide.model.blocks))
    narrow = start.plan(*pool, "--kv-cache-dtype", "fp8")
    assert tokens(narrow) / tokens(wide) == pytest.approx(2, rel=0.02)


@given(start=starts("vllm", "ascend"))
@settings(max_examples=40)
def test_a_cache_that_exceeds_the_card_does_not_start(start: Start) -> None:
    for words in (("--kv-cache-memory-bytes", str(400 << 30)), ("--num-gpu-blocks-override", "99999999")):
        plan = start.plan(*words)
        assert plan.outcome != "runs" or not plan.kv_cache_tokens


@pytest.mark.parametrize(
    ("release", "outcome"),
    [("0.6.6", "refused"), ("0.11.0", "runs"), ("0.20.0", "runs"), ("0.20.1", "refused")],
)
def test_from_0_20_1_too_few_blocks_are_refused(release: str, outcome: str) -> None:
    """V0 asked of what was said, V1 first of what it had profiled."""
    start = Start("vllm", release, "H100", "Llama-3.1-8B-Instruct", {"context": 8192})
    assert start.plan("--num-gpu-blocks-override", "100").outcome == outcome


def test_from_0_29_a_request_leaves_the_null_block() -> None:
    for release, outcome in (("0.28.0", "runs"), ("0.29.0", "refused")):
        start = Start("vllm", release, "H100", "Llama-3.1-8B-Instruct", {"context": 8192})
        assert start.plan("--num-gpu-blocks-override", "512").outcome == outcome
