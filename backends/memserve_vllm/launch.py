"""The command that starts vLLM, and the reading of one."""

from collections.abc import Mapping

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, spans_nodes, visible_cards, words
from memserve.engines.launch import Launch
from memserve.engines.rules.version import within
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

VOLTA = 75
"""Below this capability GPTQ runs on exllama, and vLLM is told so by name."""


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
        from memserve_vllm.command import parse

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
        "trust-remote-code": model.remote_code,
        "mm-encoder-attn-backend": "TORCH_SDPA" if asks_torch(model, machine, deployment) else None,
    }


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


launcher = VllmLauncher()
