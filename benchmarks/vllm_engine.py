"""memserve over vLLM: what it costs beside bare `LLM.generate`, and whether the planner knows the KV cache.

python benchmarks/vllm_engine.py MODEL [--pairs 9]        in vLLM's environment (tests/engines/make.py vllm)
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable

KV_GIB = 1
BLOCK = 128
"""The CPU build's block."""


def prompts(count: int) -> list[str]:
    """Prompts of mixed length."""
    return [f"Tell me about number {n}." + " And then some more." * (n % 9) for n in range(count)]


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU time of this process, all threads."""
    before = time.process_time()
    work()
    return time.process_time() - before


def planned_tokens(model: str) -> int:
    """KV tokens of one GiB as the planner counts them."""
    command = (
        f"vllm serve {model} --dtype float32 --max-model-len 512 --block-size {BLOCK} "
        f"--kv-cache-memory-bytes {KV_GIB}G"
    )
    return int(memserve.plan.check(command, "cpu").kv_cache_tokens)


def engine_tokens(llm: Any) -> int:
    """KV tokens as the engine allocated them."""
    config = llm.llm_engine.vllm_config.cache_config
    return int(config.num_gpu_blocks * config.block_size)


def main() -> None:
    """Interleaved pairs on one engine: through memserve, and straight at what it holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--pairs", type=int, default=9)
    args = parser.parse_args()
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(KV_GIB)
    generator = memserve.generator(args.model, backend="vllm", dtype="float32", max_model_len=512)
    from vllm import SamplingParams

    engine: Any = generator._engine  # type: ignore[attr-defined]
    llm, asked = engine._llm, prompts(32)
    ids = [{"prompt_token_ids": engine._prompts.encode(prompt)} for prompt in asked]
    settings = SamplingParams(temperature=0.0, max_tokens=32)
    bare = lambda: llm.generate(ids, settings, use_tqdm=False)  # noqa: E731
    ours = lambda: generator.generate(asked, max_tokens=32)  # noqa: E731
    same = [one.outputs[0].text for one in bare()] == [one.text for one in ours()]
    ratios = []
    for number in range(args.pairs):
        first, second = (bare, ours) if number % 2 else (ours, bare)
        times = {first: cpu_seconds(first), second: cpu_seconds(second)}
        ratios.append(times[bare] / times[ours])
        print(f"pair {number + 1}: bare {times[bare]:.2f} s, memserve {times[ours]:.2f} s CPU", flush=True)
    planned, real = planned_tokens(args.model), engine_tokens(llm)
    ratio, pairs = statistics.median(ratios), args.pairs
    print("| what | asked | measured |\n|---|---|---|")
    print(f"| tokens/s of bare LLM.generate, median of {pairs} pairs | >= 0.97 x | {ratio:.3f} x |")
    print(f"| the same texts | yes | {'yes' if same else 'no'} |")
    print(f"| KV tokens, planner and engine | equal | {planned:,} and {real:,} |")
    generator.close()
    if planned != real or not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
