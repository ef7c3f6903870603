"""What a `lmdeploy serve api_server` line asks for."""

from memserve.engines.command import Grammar, Words, read
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.unstated import UNSTATED, method
from memserve.errors import InvalidInput
from memserve_lmdeploy.launch import KV_POLICIES

FLAGS = Grammar(
    switches=frozenset({
        "trust-remote-code", "enable-prefix-caching", "eager-mode", "disable-fastapi-docs", "disable-metrics",
        "ssl", "language-model-only",
    }),
    lists=frozenset({"api-keys", "allow-origins", "allow-methods", "allow-headers", "adapters"}),
)  # fmt: skip
CONSUMED = frozenset({
    "tp", "dp", "dtype", "quant-policy", "session-len", "cache-max-entry-count", "max-batch-size",
    "max-prefill-token-num",
})  # fmt: skip


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line; None if it starts something else."""
    from memserve_lmdeploy import backend

    arguments = backend.arguments(command)
    if arguments is None:
        return None
    words = read(arguments, FLAGS)
    if len(words.bare) != 1:
        raise InvalidInput("the command must name one model", hint="lmdeploy serve api_server MODEL ...")
    return words.bare[0], deployment_of(words)


def deployment_of(words: Words) -> Deployment:
    """Every flag that decides memory; the rest as options."""
    policy = words.integer("quant-policy")
    return Deployment(
        backend="lmdeploy", engine_version="", quantization=method(words.text("model-format")),
        dtype=words.text("dtype") or "auto",
        kv_dtype=next((name for name, number in KV_POLICIES.items() if number == policy), "auto"),
        layout=Layout(tensor=words.count("tp"), data=words.count("dp")),
        context=words.integer("session-len") or UNSTATED,
        utilization=words.share("cache-max-entry-count"), max_sequences=words.integer("max-batch-size"),
        max_batched_tokens=words.integer("max-prefill-token-num"),
        options=tuple((name, value) for name, value in words.options.items() if name not in CONSUMED),
    )  # fmt: skip
