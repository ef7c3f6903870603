"""The command that starts vLLM, and the reading of one."""

import json
from collections.abc import Mapping

from memserve import files
from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import (
    LARGEST,
    UNSTATED,
    install_line,
    method,
    requirements,
    spans_nodes,
    visible_cards,
    words,
)
from memserve.engines.launch import Launch
from memserve.engines.rules import within
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

VOLTA = 75
"""Below this capability GPTQ runs on exllama, and vLLM is told so by name."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that `max_lora_rank` may be (vllm 0.19.1 to 0.33.0 vllm/config/lora.py)."""
NUMBERS = ("cpu-offload-gb", "decode-context-parallel-size", "num-gpu-blocks-override")
"""Options that the account of memory reads as numbers."""


class VllmLauncher:
    """Starts `vllm serve`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_vllm import backend

        rules = backend.rules
        command = ("vllm", "serve", checkpoint, *words(serve_options(model, machine, deployment)))
        return Launch(
            install=install_line(rules, deployment, machine.card) + ray(machine, deployment),
            command=command,
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `vllm serve` line asks for."""
        return parse(command)


def serve_options(model: ModelSpec, machine: Machine, deployment: Deployment) -> Mapping[str, object]:
    """vLLM's own option names; None where its default stands."""
    layout = deployment.layout
    return {
        "tensor-parallel-size": layout.tensor,
        "pipeline-parallel-size": layout.pipeline if layout.pipeline > 1 else None,
        "data-parallel-size": layout.data if layout.data > 1 else None,
        "enable-expert-parallel": layout.expert,
        "distributed-executor-backend": "ray" if spans_nodes(machine, deployment) else None,
        "dtype": deployment.dtype,
        "quantization": quantization_word(model, machine, deployment),
        "kv-cache-dtype": None if deployment.kv_dtype == "auto" else deployment.kv_dtype,
        "max-model-len": deployment.context,
        "gpu-memory-utilization": deployment.utilization,
        "max-num-seqs": deployment.max_sequences,
        "max-num-batched-tokens": deployment.max_batched_tokens,
        "enforce-eager": deployment.eager,
        "runner": "pooling" if model.encoder_only or model.pooling else None,
        "hf-overrides": as_classifier(model) if model.scoring_tokens else None,
        "trust-remote-code": deployment.option("trust-remote-code") is not None,
        "mm-encoder-attn-backend": "TORCH_SDPA" if asks_torch(model, machine, deployment) else None,
    }


def as_classifier(model: ModelSpec) -> str:
    """A decoder that answers yes or no, made the classifier that the routes for scores take."""
    own = (
        {"is_original_qwen3_reranker": True}
        if model.model_type == "qwen3"
        else {"method": "from_2_way_softmax"}
    )
    architecture = model.architecture.replace("ForCausalLM", "ForSequenceClassification")
    said = {"architectures": [architecture], "classifier_from_token": [*model.scoring_tokens], **own}
    return json.dumps(said, separators=(",", ":"))


def on_volta(machine: Machine) -> bool:
    """A V100, which lacks what Marlin and Triton's attention want."""
    return machine.card.vendor == "nvidia" and (machine.card.sm or 0) < VOLTA


def asks_torch(model: ModelSpec, machine: Machine, deployment: Deployment) -> bool:
    """Images on a V100: Triton's attention hangs there when they are profiled (vllm#36439)."""
    known = within(deployment.engine_version, "0.12.0", None)
    return known and bool(model.towers) and on_volta(machine)


def ray(machine: Machine, deployment: Deployment) -> str:
    """What the install line needs besides: vLLM does not bring the Ray that spans its nodes."""
    return ' "ray[cgraph]>=2.48"' if spans_nodes(machine, deployment) else ""


def quantization_word(model: ModelSpec, machine: Machine, deployment: Deployment) -> str | None:
    """What `--quantization` must say: nothing for a checkpoint that names its own method."""
    if deployment.quantization in ("nf4", "int8"):
        return "bitsandbytes"
    if deployment.option("online"):
        return deployment.quantization
    return "gptq" if deployment.quantization == "gptq" and on_volta(machine) else None


def parse(command: tuple[str, ...]) -> tuple[str, Deployment] | None:
    """The model and the deployment of a `vllm serve` line; None if it starts something else."""
    from memserve_vllm import backend

    words = backend.words(command, level)
    if words is None:
        return None
    return model_of(words), deployment_of(words)


def level(word: str) -> str:
    """-O in full: a level, a key of the compilation config, or the whole of it."""
    if not word.startswith("-O"):
        return word
    value = word[2:].lstrip("=")
    if value.startswith("."):
        return f"--compilation-config{value}"
    if value.startswith("{"):
        return f"--compilation-config={value}"
    return f"--optimization-level={value}" if value else "--optimization-level"


def model_of(words: Words) -> str:
    """The model's name or path."""
    named = words.bare[0] if words.bare else words.text("model")
    if not named:
        raise InvalidInput("the command names no model", hint="write vllm serve MODEL ...")
    if len(words.bare) > 1:
        raise InvalidInput(f"unexpected word {words.bare[1][:60]!r} after the model")
    return named


def deployment_of(words: Words) -> Deployment:
    """What decides memory; every flag as it stands among the options."""
    length = words.text("max-model-len")
    context = LARGEST if length in ("auto", "-1") else words.integer("max-model-len") or UNSTATED
    rank = words.integer("max-lora-rank")
    if rank not in (None, *RANKS):
        raise InvalidInput(f"--max-lora-rank must be one of {', '.join(map(str, RANKS))}, not {rank}")
    return Deployment(
        backend="vllm", engine_version="", quantization=method(words.text("quantization")),
        dtype=words.text("dtype") or "auto", kv_dtype=words.text("kv-cache-dtype") or "auto",
        layout=Layout(
            words.count("tensor-parallel-size"), words.count("pipeline-parallel-size"),
            words.count("data-parallel-size"), words.flag("enable-expert-parallel"),
        ),
        context=context, utilization=words.share("gpu-memory-utilization"),
        max_sequences=words.integer("max-num-seqs"),
        max_batched_tokens=words.integer("max-num-batched-tokens"), block_size=words.integer("block-size"),
        eager=words.flag("enforce-eager") or no_graphs(words),
        kv_bytes=words.integer("kv-cache-memory-bytes"),
        options=words.given(NUMBERS),
    )  # fmt: skip


def no_graphs(words: Words) -> bool:
    """Whether the compilation flags turn CUDA graphs off."""
    if words.text("optimization-level") == "0":
        return True
    text = words.text("compilation-config") or "{}"
    try:
        config = files.parsed(text)
    except ValueError as error:
        raise InvalidInput(f"--compilation-config is not JSON: {str(error)[:80]}") from None
    mode = words.text("compilation-config.cudagraph-mode")
    if isinstance(config, dict):
        mode = mode or config.get("cudagraph_mode")
    return str(mode).upper() == "NONE" and mode is not None


launcher = VllmLauncher()
