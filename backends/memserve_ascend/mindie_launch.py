"""How MindIE is started: a daemon that reads its config.json, into which the settings are put first."""

import json
from typing import Any

from memserve.engines.deployment import Deployment, Layout
from memserve.engines.install import requirements, visible_cards
from memserve.engines.launch import Launch
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec

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
