"""What a `lmdeploy serve api_server` line asks for."""

from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.unstated import UNSTATED, method
from memserve.errors import InvalidInput
from memserve_lmdeploy.launch import KV_POLICIES


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of such a line; None if it starts something else."""
    from memserve_lmdeploy import backend

    words = backend.words(command)
    if words is None:
        return None
    if len(words.bare) != 1:
        raise InvalidInput("the command must name one model", hint="lmdeploy serve api_server MODEL ...")
    return words.bare[0], deployment_of(words)


def deployment_of(words: Words) -> Deployment:
    """What decides memory; every flag as it stands among the options."""
    policy = words.integer("quant-policy")
    return Deployment(
        backend="lmdeploy", engine_version="", quantization=method(words.text("model-format")),
        dtype=words.text("dtype") or "auto",
        kv_dtype=next((name for name, number in KV_POLICIES.items() if number == policy), "auto"),
        layout=Layout(tensor=words.count("tp"), data=words.count("dp")),
        context=words.integer("session-len") or UNSTATED,
        utilization=words.share("cache-max-entry-count"), max_sequences=words.integer("max-batch-size"),
        max_batched_tokens=words.integer("max-prefill-token-num"),
        options=words.given(),
    )  # fmt: skip
