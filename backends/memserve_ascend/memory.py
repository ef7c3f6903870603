"""How vLLM-Ascend divides one NPU: vLLM's own sum over blocks of 128 tokens, with its own constants."""

from memserve.hardware.machine import GIB
from memserve.memory.weights import Storage
from memserve_vllm import memory_run
from memserve_vllm.memory import VllmAccountant
from memserve_vllm.memory_run import Facts, Run


class AscendAccountant(VllmAccountant):
    """vLLM-Ascend's start-up, as arithmetic."""

    backend = "ascend"
    block = 128

    def storage(self, run: Run) -> Storage:
        """As vLLM; torch_npu counts the bytes asked for, not whole segments."""
        return super().storage(run)._replace(segments=False)

    def lacking(self, run: Run, usable: int) -> str:
        """As vLLM; and a card whose graphs cannot be captured starts in eager mode alone."""
        if run.row("graphs").get("captured", True) or run.deployment.eager:
            return super().lacking(run, usable)
        version, card = run.deployment.engine_version, run.machine.card.name
        return f"vLLM-Ascend {version} captures no graphs on {card}: add --enforce-eager"

    def withheld(self, run: Run) -> float:
        """What the budget lacks beside weights, peak and non-torch memory."""
        row = run.row("withheld")
        fork = "fork" in run.deployment.engine_version and not memory_run.graphs(run).value
        kind = "fork" if fork else "value"
        return 0.0 if run.deployment.eager else float(row[kind] * GIB)


accountant = AscendAccountant(Facts(__file__))
