"""How vLLM-Ascend divides one NPU: vLLM's own sum over blocks of 128 tokens, with its own constants."""

from memserve.hardware.machine import GIB
from memserve.memory.weights import Storage
from memserve_vllm.memory import VllmAccountant
from memserve_vllm.memory_facts import Facts
from memserve_vllm.memory_peak import Run


class AscendAccountant(VllmAccountant):
    """vLLM-Ascend's start-up, as arithmetic."""

    backend = "ascend"
    block = 128

    def storage(self, run: Run) -> Storage:
        """As vLLM; torch_npu counts the bytes asked for, not whole segments."""
        return super().storage(run)._replace(segments=False)

    def withheld(self, run: Run) -> float:
        """What the budget lacks beside weights, peak and non-torch memory."""
        row = run.row("withheld")
        kind = "fork" if "fork" in run.deployment.engine_version else "value"
        return 0.0 if run.deployment.eager else float(row[kind] * GIB)


accountant = AscendAccountant(Facts(__file__))
