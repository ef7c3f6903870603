"""transformers: any model, any card, no paged cache."""

from collections.abc import Mapping
from typing import Any

from memserve.engines.package import Package

_WHILE_LOADING = {"bnb-4bit": "nf4", "bnb-8bit": "int8"}
_KEPT = ("model", "device", "trust_remote_code", "env")


class HfPackage(Package):
    """The package, whose own options differ from those of its server."""

    def plan_options(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `open` for a plan, as `Plan.to_dict()` gives it."""
        plan = facts.get("plan") or facts
        options = {"dtype": plan["dtype"], "context": plan["context"]}
        if plan["pipeline_parallel"] > 1:
            options["device_map"] = "auto"
        from memserve_hf.launch import of_endpoint

        said, own = super().plan_options(facts), of_endpoint(plan.get("command") or ("",))
        if own is not None:
            env = {"env": said["env"]} if "env" in said else {}
            return {**options, "model": own[0], **own[1].said(), **env}
        if "quantization" in said:
            options["quantization"] = _WHILE_LOADING[said["quantization"]]
        return {**options, **{name: said[name] for name in _KEPT if name in said}}


backend = HfPackage("hf", __name__)
