"""The command that starts transformers' own server; of an embedder or a reranker, memserve's endpoint."""

from collections.abc import Mapping, Sequence

from memserve.engines.deployment import Deployment
from memserve.engines.install import UNBOUNDED, install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.engines.server import after
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.missing import requirement
from memserve.model.spec import ModelSpec
from memserve.protocol import Task
from memserve_hf.options import Options, read

WORDS = {"nf4": "bnb-4bit", "int8": "bnb-8bit"}
SWITCHES = {"load-in-4bit": "nf4", "load-in-8bit": "int8"}
"""How releases before 5.0 said it."""


ENDPOINT = ("memserve", "serve", "--backend", "hf")
"""What serves vectors: transformers 5.24.0 cli/serving/server.py has chat, completions, responses and
transcriptions alone."""
READ = frozenset({"context", "max_length", "device_map"})
"""Its options that the deployment itself holds."""


class HfLauncher:
    """Starts `transformers serve`, or memserve's endpoint; memserve's own runs use "hf" without a server."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment."""
        from memserve_hf import backend

        quantization = deployment.quantization if deployment.option("online") else None
        device = "cpu" if machine.card.vendor == "cpu" else None
        trust = deployment.option("trust-remote-code") is not None
        install = install_line(backend.rules, deployment, machine.card)
        if model.embeds:
            install = f"{install} {requirement('hf')}"
            options = {
                "dtype": deployment.dtype, "device": device, "quantization": quantization,
                "device_map": "auto" if deployment.layout.pipeline > 1 else None,
                "trust_remote_code": trust or None,
            }  # fmt: skip
            task: Task = "rerank" if "Classification" in model.architecture else "embed"
            command = endpoint_command(checkpoint, task, options)
        else:
            command = serve_command(
                checkpoint, quantization=quantization, dtype=deployment.dtype, device=device, trust=trust
            )
        return Launch(
            install=install, command=command, env=visible_cards(machine, deployment.layout.cards),
            notes=requirements(backend.rules, deployment, machine.card),
        )  # fmt: skip

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment of such a line, which bounds no context; None if it starts another."""
        from memserve_hf import backend

        own = of_endpoint(command)
        if own is not None:
            return own[0], _asked(own[1])
        said = backend.words(command)
        if said is None:
            return None
        named = said.bare[0] if said.bare else said.text("force-model")
        if not named:
            raise InvalidInput("the command names no model", hint="write transformers serve MODEL ...")
        online = said.text("quantization")
        asked = next((method for name, method in SWITCHES.items() if said.flag(name)), "none")
        return named, Deployment(
            backend="hf", engine_version="", context=UNBOUNDED,
            dtype=said.text("dtype") or said.text("torch-dtype") or "auto",
            quantization=next((method for method, word in WORDS.items() if word == online), asked),
            options=said.given(),
        )  # fmt: skip


def serve_command(checkpoint: str, *, quantization: str | None, dtype: str | None, device: str | None,
                  trust: bool) -> tuple[str, ...]:  # fmt: skip
    """`transformers serve` with the few options that it has."""
    options = {
        "quantization": WORDS.get(quantization or ""), "dtype": dtype, "device": device or "auto",
        "trust-remote-code": trust,
    }  # fmt: skip
    return ("transformers", "serve", checkpoint, *words(options))


def endpoint_command(checkpoint: str, task: Task, options: Mapping[str, object]) -> tuple[str, ...]:
    """`memserve serve --backend hf` with the backend's own options, but for those that are None."""
    said = [f"{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in options.items() if value is not None]  # fmt: skip
    return (*ENDPOINT, "--model", checkpoint, "--task", task, *(("--options", *said) if said else ()))


def of_endpoint(command: Sequence[str]) -> tuple[str, Options] | None:
    """The model and the options that such a command says, by the verb's own parser; None for another."""
    arguments = after(command, ENDPOINT)
    if arguments is None:
        return None
    from memserve.serve.__main__ import one_way, parser

    if not {"-h", "--help"}.isdisjoint(arguments):
        raise InvalidInput("a command with --help starts nothing")
    said = parser().read([*ENDPOINT[2:], *arguments])
    one_way(said)
    if said.model is None:
        raise InvalidInput("the command names no model", hint=f"write {' '.join(ENDPOINT)} --model MODEL ...")
    return said.model, read(dict(word.partition("=")[::2] for word in said.options))


def _asked(given: Options) -> Deployment:
    """The deployment; without a word on the dtype a CPU computes in float32."""
    said = {name: value for name, value in given.said().items() if name not in READ}
    return Deployment(
        backend="hf", engine_version="", context=given.max_length or given.context or UNBOUNDED,
        dtype=given.dtype or ("float32" if given.device == "cpu" else "auto"),
        quantization=given.quantization or "none",
        options=tuple((name.replace("_", "-"), "true" if value is True else str(value))
                      for name, value in said.items()),
    )  # fmt: skip


launcher = HfLauncher()
