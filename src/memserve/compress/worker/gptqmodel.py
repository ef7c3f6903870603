"""gptq and awq as older cards and engines read them, by GPTQModel."""

from __future__ import annotations

import re
from typing import Any

from memserve.compress.worker.model import calibration, copy_rest, left_alone


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Layer by layer over the calibration samples."""
    import torch
    from gptqmodel import GPTQModel, QuantizeConfig
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        kept = left_alone(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job["model"])),
                          job["left_alone"])  # fmt: skip
    config = QuantizeConfig(
        bits=4, group_size=job["group"], quant_method=job["kind"],
        format="gemm" if job["kind"] == "awq" else "gptq",
        dynamic={f"-:^{re.escape(name)}$": {} for name in kept} or None,
    )  # fmt: skip
    model = GPTQModel.load(job["model"], config)
    ids = calibration(job)
    model.quantize([{"input_ids": one, "attention_mask": [1] * len(one)} for one in ids], batch_size=1)
    model.save(job["target"])
    copy_rest(job["model"], job["target"])
    return {"left_alone": kept}
