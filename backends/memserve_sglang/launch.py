"""The command that starts SGLang, and the reading of one."""

from collections.abc import Mapping

from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import (
    UNSTATED,
    install_line,
    method,
    requirements,
    spans_nodes,
    visible_cards,
    words,
)
from memserve.engines.launch import Launch
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

MODULE = "sglang.launch_server"
NUMBERS = (
    "swa-full-tokens-ratio", "mamba-full-memory-ratio", "max-mamba-cache-size", "cuda-graph-max-bs",
    "max-total-tokens",
)  # fmt: skip
"""Options that the account of memory reads as numbers."""


class SglangLauncher:
    """Starts `python -m sglang.launch_server`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_sglang import backend

        start = ("python", "-m", "sglang.launch_server", "--model-path", checkpoint)
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=(*start, *words(server_options(model, machine, deployment))),
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a launch line asks for."""
        return parse(command)


def server_options(model: ModelSpec, machine: Machine, deployment: Deployment) -> Mapping[str, object]:
    """SGLang's own option names; None where its default stands. `tp-size` counts one copy's tensor ranks."""
    layout, spans = deployment.layout, spans_nodes(machine, deployment)
    return {
        "tp-size": layout.tensor, "pp-size": layout.pipeline if layout.pipeline > 1 else None,
        "dp-size": layout.data if layout.data > 1 else None,
        "ep-size": layout.tensor if layout.expert else None, "nnodes": machine.nodes if spans else None,
        "node-rank": 0 if spans else None, "dist-init-addr": "HEAD_NODE:20000" if spans else None,
        "device": "npu" if machine.card.vendor == "ascend" else None,
        "attention-backend": "ascend" if machine.card.vendor == "ascend" else None,
        "dtype": deployment.dtype, "quantization": quantization_word(machine, deployment),
        "kv-cache-dtype": kv_word(deployment.kv_dtype), "context-length": deployment.context,
        "mem-fraction-static": deployment.utilization, "max-running-requests": deployment.max_sequences,
        "chunked-prefill-size": deployment.max_batched_tokens,
        "is-embedding": model.encoder_only or model.pooling is not None,
        "trust-remote-code": deployment.option("trust-remote-code") is not None,
    }  # fmt: skip


def quantization_word(machine: Machine, deployment: Deployment) -> str | None:
    """What `--quantization` must say: nothing for a checkpoint that names its own method."""
    if deployment.quantization == "w8a8" and machine.card.vendor == "ascend":
        return "modelslim"
    if not deployment.option("online"):
        return None
    return "bitsandbytes" if deployment.quantization == "nf4" else deployment.quantization


def kv_word(kv_dtype: str) -> str | None:
    """SGLang names both FP8 layouts in full."""
    return None if kv_dtype == "auto" else {"fp8": "fp8_e4m3"}.get(kv_dtype, kv_dtype)


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a launch line; None if it starts something else."""
    from memserve_sglang import backend

    words = backend.words(command)
    if words is None:
        return None
    named = words.text("model-path") or (words.bare[0] if words.bare else None)
    if not named:
        raise InvalidInput(
            "the command names no model", hint=f"write python -m {MODULE} --model-path MODEL ..."
        )
    return named, deployment_of(words)


def deployment_of(words: Words) -> Deployment:
    """What decides memory; every flag as it stands among the options."""
    chunk = words.text("chunked-prefill-size")
    return Deployment(
        backend="sglang", engine_version="", quantization=method(words.text("quantization")),
        dtype=words.text("dtype") or "auto", kv_dtype=words.text("kv-cache-dtype") or "auto",
        layout=layout_of(words), context=words.integer("context-length") or UNSTATED,
        utilization=words.share("mem-fraction-static"), max_sequences=words.integer("max-running-requests"),
        max_batched_tokens=None if chunk in (None, "-1") else words.integer("chunked-prefill-size"),
        block_size=words.integer("page-size"), eager=words.flag("disable-cuda-graph"),
        options=words.given(NUMBERS),
    )  # fmt: skip


def layout_of(words: Words) -> Layout:
    """tp is the number of all ranks; with DP attention, dp groups of them share attention."""
    tensor, pipeline, data = (words.count(f"{name}-parallel-size") for name in ("tensor", "pipeline", "data"))
    experts = words.count("expert-parallel-size") > 1 or words.flag("enable-ep-moe")
    if not words.flag("enable-dp-attention"):
        return Layout(tensor, pipeline, data, experts)
    return Layout(tensor, pipeline, 1, experts, attention_data=data)


launcher = SglangLauncher()
