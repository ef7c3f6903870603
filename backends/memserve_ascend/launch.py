"""The command that starts vLLM-Ascend: vLLM's own, with Ascend's words and environment."""

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, spans_nodes, visible_cards, words
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve_vllm.launch import parse, ray, serve_options

BLOCK = 128
"""Forced with prefix caching or chunked prefill (vllm_ascend/utils.py:1380-1406)."""

ON_MODELSCOPE = ("vllm-ascend/", "Eco-Tech/")
"""Whose checkpoints lie on ModelScope, where vLLM looks only when told to."""


class AscendLauncher:
    """Starts `vllm serve` with the Ascend plug-in."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_ascend import backend

        rules = backend.rules
        options = {**serve_options(model, machine, deployment), "block-size": BLOCK}
        if deployment.quantization in ("w8a8", "w4a8"):
            options["quantization"] = "ascend"
        return Launch(
            install=install_line(rules, deployment, machine.card) + ray(machine, deployment),
            command=("vllm", "serve", checkpoint, *words(options)),
            env={
                **visible_cards(machine, deployment.layout.cards),
                **environment(machine, deployment),
                **({"VLLM_USE_MODELSCOPE": "True"} if checkpoint.startswith(ON_MODELSCOPE) else {}),
            },
            notes=requirements(rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `vllm serve` line asks for."""
        return parse(command)


def settings(cards: int) -> dict[str, str]:
    """Allocator and HCCL settings; the buffer is what the memory account assumed per communicator."""
    from memserve_ascend import backend

    env = {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True", "TASK_QUEUE_ENABLE": "1"}
    if cards > 1:
        buffer = backend.rules["hccl"]["buffer_mib"]
        env |= {"HCCL_OP_EXPANSION_MODE": "AIV", "HCCL_BUFFSIZE": str(buffer)}
    return env


def environment(machine: Machine, deployment: Deployment) -> dict[str, str]:
    """What the planned layout needs; several nodes are told who they are as well."""
    env = settings(deployment.layout.cards)
    if spans_nodes(machine, deployment):
        env |= {"HCCL_IF_IP": "THIS_NODE_IP", "HCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0"}
    return env


launcher = AscendLauncher()
