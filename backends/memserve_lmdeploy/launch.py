"""The command that starts LMDeploy's server on TurboMind."""

from memserve.engines.command import Words
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import UNSTATED, install_line, method, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.errors import InvalidInput
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
            "trust-remote-code": deployment.option("trust-remote-code") is not None,
        }  # fmt: skip
        return Launch(
            install=install_line(backend.rules, deployment, machine.card),
            command=("lmdeploy", "serve", "api_server", checkpoint, *words(options)),
            env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment of such a line; None if it starts something else."""
        from memserve_lmdeploy import backend

        said = backend.words(command)
        if said is None:
            return None
        if len(said.bare) != 1:
            raise InvalidInput("the command must name one model", hint="lmdeploy serve api_server MODEL ...")
        return said.bare[0], deployment_of(said)


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


launcher = LmdeployLauncher()
