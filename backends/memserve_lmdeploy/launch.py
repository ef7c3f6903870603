"""The command that starts LMDeploy's server on TurboMind."""

from memserve.engines.deployment import Deployment
from memserve.engines.install import install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

FORMATS = {"gptq": "gptq", "awq": "awq", "w4a16": "compressed-tensors", "fp8": "fp8", "mxfp4": "mxfp4"}
KV_POLICIES = {"int8": 8, "int4": 4}


class LmdeployLauncher:
    """Starts `lmdeploy serve api_server`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_lmdeploy import backend

        options = {
            "backend": "turbomind", "tp": deployment.layout.tensor,
            "dp": deployment.layout.data if deployment.layout.data > 1 else None, "dtype": deployment.dtype,
            "model-format": FORMATS.get(deployment.quantization),
            "quant-policy": KV_POLICIES.get(deployment.kv_dtype), "session-len": deployment.context,
            "cache-max-entry-count": deployment.utilization, "max-batch-size": deployment.max_sequences,
            "trust-remote-code": model.remote_code,
        }  # fmt: skip
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=("lmdeploy", "serve", "api_server", checkpoint, *words(options)),
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a `lmdeploy serve api_server` line asks for."""
        from memserve_lmdeploy.command import parse

        return parse(command)


launcher = LmdeployLauncher()
