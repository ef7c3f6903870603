"""transformers' room: any model, any card, no paged cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.engines.package import Package

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHILE_LOADING = ("nf4", "fp4", "int8")


class HfPackage(Package):
    """The room, which can also open what a plan names."""

    def plan_options(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `open` for a plan, as `Plan.to_dict()` gives it."""
        plan = facts.get("plan") or facts
        options = {"dtype": plan["dtype"], "context": plan["context"]}
        if plan["quantization"] in _WHILE_LOADING:
            options["quantization"] = plan["quantization"]
        if plan["pipeline_parallel"] > 1:
            options["device_map"] = "auto"
        return options


backend = HfPackage("hf", __name__)
