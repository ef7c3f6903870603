"""fp8, w8a8, w4a16 and nvfp4 in compressed-tensors, by llm-compressor."""

from __future__ import annotations

from typing import Any

from memserve.compress.worker.model import calibration, copy_rest, left_alone, opened

SCHEMES = {"fp8": "FP8_DYNAMIC", "w8a8": "W8A8", "nvfp4": "NVFP4"}
SMOOTHED = 0.8


def make(job: dict[str, Any]) -> dict[str, Any]:
    """One call of the library's, on a model in its own dtype."""
    from datasets import Dataset
    from llmcompressor import oneshot

    model = opened(job["model"])
    kept = left_alone(model, job["left_alone"])
    words: dict[str, Any] = {}
    if job["samples"]:
        ids = calibration(job)
        rows = {"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]}
        words = {"dataset": Dataset.from_dict(rows), "max_seq_length": job["length"],
                 "num_calibration_samples": len(ids)}  # fmt: skip
    oneshot(model=model, recipe=_recipe(job, kept), **words)
    model.save_pretrained(job["target"], save_compressed=True)
    copy_rest(job["model"], job["target"])
    return {"left_alone": kept}


def _recipe(job: dict[str, Any], kept: list[str]) -> list[Any]:
    """What the library's own examples do for each scheme."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    if job["kind"] == "w4a16":
        weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group",
                                   group_size=job["group"])  # fmt: skip
        groups = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
        return [GPTQModifier(config_groups=groups, ignore=kept)]
    plain = QuantizationModifier(targets="Linear", scheme=SCHEMES[job["kind"]], ignore=kept)
    if job["kind"] != "w8a8":
        return [plain]
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    return [SmoothQuantModifier(smoothing_strength=SMOOTHED, ignore=kept), plain]
