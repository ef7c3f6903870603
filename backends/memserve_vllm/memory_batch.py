"""The batch that vLLM profiles with: how many sequences and tokens, from flags or the card's defaults."""

from memserve.engines.rules.version import within
from memserve_vllm import memory_regime
from memserve_vllm.memory_run import Batch, Run

V0_LEAST = 2048
V0_SEQUENCES = 256
V0_POOLING = 32768
V0_MULTIMODAL = 5120
CHUNKED_SINCE = "0.5.4"
V0_CHUNKED_FROM = 32768
THROUGHPUT_SINCE = "0.18.0"


def batch(run: Run) -> Batch:
    """Sequences and tokens of the profiling run."""
    deployment, row, bounds = run.deployment, run.row("batch"), run.row("bounds")
    if memory_regime.engine(run).value == "V0":
        return _v0(run)
    chunked = _chunked(run, obeyed=bounds["unchunked"] == "obeyed")
    doubled = 2 if _throughput(run) else 1
    tokens = deployment.max_batched_tokens or (row["tokens"] or V0_LEAST) * doubled
    sequences = deployment.max_sequences or row["sequences"] * doubled
    if deployment.max_batched_tokens is None:
        if not chunked:
            least = tokens if bounds["unchunked"] == "obeyed" else 0
            tokens = max(least, deployment.context)
        if bounds["tokens"] == "lowered":
            tokens = min(tokens, sequences * deployment.context)
    if deployment.max_sequences is None and bounds["sequences"] == "lowered":
        sequences = min(sequences, tokens)
    return Batch(sequences, tokens, True, chunked)


def refused(run: Run) -> str:
    """What the scheduler says of more sequences than tokens; empty where it says nothing."""
    found = run.batch
    if run.row("bounds")["sequences"] != "refused" or not found.v1 or found.tokens >= found.sequences:
        return ""
    return (
        f"max_num_batched_tokens ({found.tokens}) must be at least max_num_seqs ({found.sequences})"
        f" up to vLLM 0.10.0: add --max-num-seqs {found.tokens}"
    )


def _throughput(run: Run) -> bool:
    asked = run.deployment.option("performance-mode") == "throughput"
    return asked and within(run.deployment.engine_version, THROUGHPUT_SINCE, None)


def _chunked(run: Run, *, obeyed: bool) -> bool:
    """V1 chunks the prompts of all that writes, and cannot those of encoders."""
    asked = run.deployment.option("enable-chunked-prefill")
    able = not run.model.encoder_only and not run.model.encoder
    if asked is None or (not obeyed and not memory_regime.pools(run)):
        return able
    return asked != "false"


def _v0(run: Run) -> Batch:
    """V0 profiles a whole prompt, unless a context above 32k turned chunked prefill on."""
    deployment, model = run.deployment, run.model
    chunked = deployment.option("enable-chunked-prefill") == "true" or _long(run)
    tokens = deployment.max_batched_tokens
    if tokens is None:
        tokens = run.row("chunk")["value"] if chunked else max(deployment.context, V0_LEAST)
        tokens = max(tokens, V0_POOLING * memory_regime.pools(run), V0_MULTIMODAL * bool(model.towers))
    return Batch(deployment.max_sequences or min(V0_SEQUENCES, tokens), tokens, False, chunked)


def _long(run: Run) -> bool:
    """Whether V0 chunks a long context by itself."""
    deployment, model = run.deployment, run.model
    if deployment.option("enable-chunked-prefill") or deployment.context <= V0_CHUNKED_FROM:
        return False
    kept = {"sliding", "mla"} if within(deployment.engine_version, "0.8.0", None) else {"sliding"}
    whole = kept & {block.mixer.kind for block in model.blocks}
    able = not whole and not model.towers and not memory_regime.pools(run)
    return able and within(deployment.engine_version, CHUNKED_SINCE, None)
