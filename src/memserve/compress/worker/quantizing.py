"""Fewer bits: each function is one call of the library that it is named after."""

from __future__ import annotations

import re
from typing import Any

from memserve.compress.worker.model import calibration, copy_rest, kind_of, left_alone, opened

SCHEMES = {"fp8": "FP8_DYNAMIC", "w8a8": "W8A8", "nvfp4": "NVFP4"}
SMOOTHED = 0.8


def make(job: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint, with all that lies beside the weights."""
    kept, ids = _kept(job), calibration(job) if job["samples"] else []
    {"llmcompressor": llmcompressor, "gptqmodel": gptqmodel, "bitsandbytes": bitsandbytes}[job["library"]](
        job, kept, ids
    )
    copy_rest(job["model"], job["target"])
    return {"left_alone": kept, "samples": len(ids)}


def _kept(job: dict[str, Any]) -> list[str]:
    """The modules that stay as they are, seen on a model without weights."""
    import torch

    kind, config = kind_of(job["model"])
    with torch.device("meta"):
        return left_alone(kind.from_config(config), job["left_alone"])


def llmcompressor(job: dict[str, Any], kept: list[str], ids: list[list[int]]) -> None:
    """fp8, w8a8, w4a16 and nvfp4 in compressed-tensors, as the library's own examples make them."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    if job["kind"] == "w4a16":
        weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group",
                                   group_size=job["group"])  # fmt: skip
        groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
        recipe = [GPTQModifier(config_groups=groups, ignore=kept)]
    else:
        recipe = [QuantizationModifier(targets="Linear", scheme=SCHEMES[job["kind"]], ignore=kept)]
    if job["kind"] == "w8a8":
        recipe.insert(0, SmoothQuantModifier(smoothing_strength=SMOOTHED, ignore=kept))
    words: dict[str, Any] = {}
    if ids:
        rows = {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]}
        words = {"dataset": Dataset.from_dict(rows), "max_seq_length": job["length"],
                 "num_calibration_samples": len(ids)}  # fmt: skip
    model = opened(job["model"])
    oneshot(model=model, recipe=recipe, **words)
    model.save_pretrained(job["target"], save_compressed=True)


def gptqmodel(job: dict[str, Any], kept: list[str], ids: list[list[int]]) -> None:
    """gptq and awq as older cards read them, layer by layer over the samples."""
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    form = {"gptq": "gptq", "awq": "gemm"}[job["kind"]]
    left: Any = {f"-:^{re.escape(name)}$": {} for name in kept} or None
    model = GPTQModel.load(job["model"], QuantizeConfig(
        bits=4, group_size=job["group"], quant_method=job["kind"], format=form, dynamic=left))  # fmt: skip
    rows = [{"input_ids": one, "attention_mask": [1] * len(one)} for one in ids]
    kernel = {} if torch.cuda.is_available() or job["kind"] == "gptq" else {"backend": BACKEND.AWQ_TORCH}
    model.quantize(rows, batch_size=1, **kernel)
    model.save(job["target"])


def bitsandbytes(job: dict[str, Any], kept: list[str], _: list[list[int]]) -> None:
    """nf4 and int8, where loading is making."""
    from transformers import BitsAndBytesConfig

    dtype = kind_of(job["model"])[1].dtype
    words = {"load_in_8bit": True} if job["kind"] == "int8" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype}  # fmt: skip
    config = BitsAndBytesConfig(llm_int8_skip_modules=kept, **words)
    opened(job["model"], quantization_config=config).save_pretrained(job["target"])
