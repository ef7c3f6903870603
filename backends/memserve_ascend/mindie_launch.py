"""How MindIE is started: a daemon that reads its config.json; the plan says what to write there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from memserve.engines.install import requirements, visible_cards
from memserve.engines.launch import Launch

if TYPE_CHECKING:
    from memserve.engines.deployment import Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec

FOLDER = "/usr/local/Ascend/mindie/latest/mindie-service"


class MindieLauncher:
    """Starts `mindieservice_daemon`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The image, the daemon, and the settings of its config.json as a note."""
        from memserve_ascend import mindie

        settings = json.dumps(config(model, checkpoint, deployment))
        return Launch(
            install=str(mindie.rules["versions"][0]["installer"]),
            command=(f"{FOLDER}/bin/mindieservice_daemon",),
            env={"NPU_MEMORY_FRACTION": "0.8", **visible_cards(machine, deployment.layout.cards)},
            notes=(
                *requirements(mindie.rules, deployment, machine.card),
                f"in {FOLDER}/conf/config.json set BackendConfig: {settings}",
            ),
        )

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """MindIE's settings stand in a file, so no command line is read."""
        return None


def config(model: ModelSpec, checkpoint: str, deployment: Deployment) -> dict[str, object]:
    """The part of MindIE's config.json that the plan decides."""
    cards = deployment.layout.cards
    served = {
        "modelName": model.id.rsplit("/", 1)[-1], "modelWeightPath": checkpoint, "worldSize": cards,
        "backendType": "atb", "trustRemoteCode": model.remote_code, "npuMemSize": -1,
    }  # fmt: skip
    return {
        "npuDeviceIds": [list(range(cards))],
        "ModelDeployConfig": {
            "maxSeqLen": deployment.context, "maxInputTokenLen": deployment.context, "ModelConfig": [served],
        },
        "ScheduleConfig": {"cacheBlockSize": 128, "maxPrefillTokens": max(8192, deployment.context)},
    }  # fmt: skip


launcher = MindieLauncher()
