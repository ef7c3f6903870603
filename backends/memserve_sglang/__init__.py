"""SGLang: what it supports on which card, its memory, how it is launched and driven."""

from collections.abc import Mapping
from typing import Any

from memserve.engines.package import Package


class SglangPackage(Package):
    """A package whose command names the model by an option."""

    def plan_options(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Options of `open` for a plan."""
        options = super().plan_options(facts)
        return {"model": options.pop("model_path", None), **options}


backend = SglangPackage("sglang", __name__)
