"""MindIE: how it divides one NPU, how its daemon is started, and that the openai backend speaks to it."""

import json
from typing import Any

from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import requirements, visible_cards
from memserve.engines.launch import Launch
from memserve.engines.memory import Footprint
from memserve.errors import InvalidInput, Unsupported
from memserve.hardware.machine import GIB, Machine
from memserve.memory.kv import element_bytes, forward_bytes, largest_context, sequence_bytes, stage_caches
from memserve.memory.weights import Split, rope_bytes, stage_bytes, storage
from memserve.model.spec import ModelSpec
from memserve.protocol import Capabilities, Task

FRACTION = 0.8
"""NPU_MEMORY_FRACTION's default (verylucky01/MindIE-LLM@2ad5b22e service_parameter_configuration.md)."""
BLOCK = 128
PREFILL_TOKENS = 8192
RUNTIME = 3 * GIB
"""What gpustack 2.3's MindIE selector reserves for CANN, HCCL and the runtime; no log confirms it."""
ERROR = 0.15
ELEMENT = 2


class MindieAccountant:
    """npuMemSize = total x fraction - weights - runtime - working set."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide one card as MindIE does."""
        total, tensor = machine.card.memory, deployment.layout.tensor
        held_in = storage(model, deployment.quantization, deployment.dtype)
        weights = max(stage_bytes(model, Split(tensor, tensor, tensor), held_in)) + rope_bytes(model)
        usable = int(total * (deployment.utilization or FRACTION))
        prefill = deployment.max_batched_tokens or max(PREFILL_TOKENS, deployment.context)
        activation = forward_bytes(model, prefill, ELEMENT, tensor)
        pool = max(0, usable - weights - activation - RUNTIME)
        (caches,) = stage_caches(model, 1, tensor, element_bytes(deployment.kv_dtype, deployment.dtype))
        per_block = sequence_bytes(caches, BLOCK)
        tokens = pool // per_block * BLOCK if per_block else 0
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=activation, non_torch=RUNTIME, graphs=0,
            kv_cache=pool, kv_tokens=tokens, max_concurrency=tokens / deployment.context, error=ERROR,
        )  # fmt: skip
        return _judged(footprint, deployment)

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest sequence that the pool holds."""
        return largest_context(self, model, machine, deployment)


def _judged(footprint: Footprint, deployment: Deployment) -> Footprint:
    needed = footprint.weights + footprint.activation + footprint.non_torch
    if needed > footprint.usable:
        words = f"{needed / GIB:.2f} GiB of weights, passes and runtime"
        return footprint.fails(
            "out_of_memory", f"{words} exceed {footprint.usable / GIB:.2f} GiB of the card"
        )
    if footprint.kv_tokens < deployment.context:
        words = f"the KV pool holds {footprint.kv_tokens:,} tokens"
        return footprint.fails("refused", f"{words}; a sequence of {deployment.context:,} is asked for")
    return footprint


accountant = MindieAccountant()


FOLDER = "/usr/local/Ascend/mindie/latest/mindie-service"
DAEMON = "mindieservice_daemon"
PUT = (
    "import json,os,pathlib,sys; os.chdir(sys.argv[1]); p=pathlib.Path('conf/config.json'); "
    "m=lambda a,b:{**a,**{k:m(a.get(k),v) for k,v in b.items()}} if isinstance(a,dict) and isinstance(b,dict)"
    " else [m(x,y) for x,y in zip(a,b)] if isinstance(a,list) and isinstance(b,list) and len(a)==len(b)"
    " else b; "
    "p.write_text(json.dumps(m(json.loads(p.read_text()),json.loads(sys.argv[2])),indent=2)); "
    f"os.execl('bin/{DAEMON}','{DAEMON}')"
)
"""Merges settings into the service's config.json, whose other keys stay, and becomes the daemon."""
START = ("python3", "-c", PUT, FOLDER)


class MindieLauncher:
    """Starts `mindieservice_daemon`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The image, and the command that configures the daemon and starts it."""
        from memserve_ascend import mindie

        return Launch(
            install=str(mindie.rules["versions"][0]["installer"]),
            command=(*START, json.dumps({"BackendConfig": config(model, checkpoint, deployment)})),
            env={"NPU_MEMORY_FRACTION": "0.8", **visible_cards(machine, deployment.layout.cards)},
            notes=requirements(mindie.rules, deployment, machine.card),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that the settings of such a command ask for."""
        if command[0].rpartition("/")[2] == DAEMON:
            raise InvalidInput(f"{DAEMON} reads model and sizes from conf/config.json, not its command",
                               hint="memserve plan MODEL --backend mindie shows that file")  # fmt: skip
        if len(command) != len(START) + 1 or command[0] not in START or DAEMON not in command[2]:
            return None
        try:
            settings = json.loads(command[-1])["BackendConfig"]
            return _asked(settings["ModelDeployConfig"], settings["ScheduleConfig"])
        except (ValueError, LookupError, TypeError) as error:
            raise InvalidInput(f"the service's settings cannot be read: {error}") from None


def config(model: ModelSpec, checkpoint: str, deployment: Deployment) -> dict[str, object]:
    """The part of MindIE's config.json that the plan decides."""
    cards = deployment.layout.cards
    served = {
        "modelName": model.id.rsplit("/", 1)[-1], "modelWeightPath": checkpoint, "worldSize": cards,
        "backendType": "atb", "npuMemSize": -1,
        "trustRemoteCode": deployment.option("trust-remote-code") is not None,
    }  # fmt: skip
    prefill = deployment.max_batched_tokens or max(8192, deployment.context)
    return {
        "npuDeviceIds": [list(range(cards))],
        "ModelDeployConfig": {
            "maxSeqLen": deployment.context, "maxInputTokenLen": deployment.context, "ModelConfig": [served],
        },
        "ScheduleConfig": {"cacheBlockSize": 128, "maxPrefillTokens": prefill},
    }  # fmt: skip


def _asked(model: dict[str, Any], schedule: dict[str, Any]) -> tuple[str, Deployment]:
    served = model["ModelConfig"][0]
    return str(served["modelWeightPath"]), Deployment(
        backend="mindie",
        engine_version="",
        dtype="auto",
        layout=Layout(tensor=int(served["worldSize"])),
        context=int(model["maxSeqLen"]),
        max_batched_tokens=int(schedule["maxPrefillTokens"]),
    )


launcher = MindieLauncher()


capabilities = Capabilities(
    backend="mindie", chat=True, temperature=True, top_p=True, max_tokens=True, stop=True, usage=True,
    top_k=True, seed=True, n=True, stream=True,
)  # fmt: skip


def open_engine(model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
    """Refused, with the way to reach a running server."""
    raise Unsupported(
        "mindie", "an engine in this process",
        hint="start the plan's server and open backend='openai', base_url=..., dialect='mindie'",
    )  # fmt: skip
