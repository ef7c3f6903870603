"""What a start takes that nobody said: each value with the release's file, or the word that decided it."""

from memserve.engines.assumption import Assumption
from memserve_vllm import memory_regime
from memserve_vllm.memory_pages import Pool
from memserve_vllm.memory_run import Run

VENDORS_OWN = "nvcr.io/nvidia"


def assumptions(run: Run, utilization: float, pool: Pool) -> tuple[Assumption, ...]:
    """In the order of the contract."""
    found: tuple[Assumption, ...] = (
        *_batch(run), _block(run, pool), _utilization(run, utilization), _chunked(run),
    )  # fmt: skip
    ways = {
        "graphs_in_budget": memory_regime.graphs(run), "sampler": memory_regime.sampler(run),
        "engine": memory_regime.engine(run), "model_runner": memory_regime.runner(run),
    }  # fmt: skip
    found += tuple(Assumption(name, way.value, way.source) for name, way in ways.items())
    if VENDORS_OWN not in run.deployment.image:
        return found
    doubt = "; NVIDIA's own container is not the release of that number: a guess"
    return tuple(one._replace(source=one.source + doubt) for one in found)


def _batch(run: Run) -> tuple[Assumption, Assumption]:
    row, deployment, found = run.row("batch"), run.deployment, run.batch
    offline = f"; the LLM class takes {row['offline']:,} tokens" if row["offline"] else ""
    tokens = row["source"] + offline if found.tokens == row["tokens"] else f"{row['source']}, {_bounded(run)}"
    sequences = row["source"] if found.sequences == row["sequences"] else f"{row['source']}, {_bounded(run)}"
    if deployment.max_batched_tokens:
        tokens = "--max-num-batched-tokens of the command"
    if deployment.max_sequences:
        sequences = "--max-num-seqs of the command"
    return (
        Assumption("max_num_batched_tokens", found.tokens, tokens),
        Assumption("max_num_seqs", found.sequences, sequences),
    )


def _bounded(run: Run) -> str:
    return f"bounded by context, tokens and sequences: {run.row('bounds')['source']}"


def _block(run: Run, pool: Pool) -> Assumption:
    way = memory_regime.block(run)
    size = min((group.block for group in pool.groups), default=int(way.value))
    raised = "" if size == way.value else "; raised until a page holds a recurrent state"
    return Assumption("block_size", size, way.source + raised)


def _utilization(run: Run, share: float) -> Assumption:
    said = run.deployment.utilization is not None
    source = "--gpu-memory-utilization of the command" if said else run.row("utilization")["source"]
    return Assumption("gpu_memory_utilization", share, source)


def _chunked(run: Run) -> Assumption:
    said = run.deployment.option("enable-chunked-prefill")
    source = f"--enable-chunked-prefill {said} of the command; " if said else ""
    return Assumption("chunked_prefill", run.batch.chunked, source + run.row("bounds")["source"])
