"""An encoder through OpenVINO: twice the texts a second on a CPU, proven equal before it is used."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

from memserve_hf.engines import need
from memserve_hf.loading import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from memserve_hf.encoder import Forward

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
TOLERANCE = 1e-4
"""Of the spread of the states; a wrong mask is off by about the spread itself."""
log = logging.getLogger("memserve.hf")


def compiled_forward(model: Any, plain: Forward, *, pooler: bool, threads: int | None) -> Forward | None:
    """The compiled model, or None where it cannot be built or does not agree with `plain`."""
    openvino = need("openvino", "openvino (for compiled=True)")
    samples = [_sample(model, lengths) for lengths in ((5, 3), (9, 2, 4), (6,))]
    try:
        with warnings.catch_warnings(), quiet():
            warnings.simplefilter("ignore")
            graph = openvino.convert_model(_Traced(model, pooler), example_input=samples[0])
        settings = {**EXACT, "INFERENCE_NUM_THREADS": threads or torch.get_num_threads()}
        request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()
        forward = _bound(request, frozenset(samples[0]), pooler)
        agrees = all(_agree(forward(sample), plain(sample), sample) for sample in samples)
    except Exception as error:  # any converter's failure means only that the plain model is used
        log.info("%s is not compiled: %s", type(model).__name__, error)
        return None
    if not agrees:
        log.info("%s is not compiled: its states differ", type(model).__name__)
        return None
    return forward


class _Traced(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """The model with plain tensors in and out, for the converter."""

    def __init__(self, model: Any, pooler: bool) -> None:
        super().__init__()
        self.model, self.pooler = model, pooler

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return (out.last_hidden_state, out.pooler_output) if self.pooler else out.last_hidden_state


def _sample(model: Any, lengths: tuple[int, ...]) -> dict[str, Tensor]:
    """Rows of these lengths, padded; the samples differ in every dimension that may vary."""
    longest, rows = max(lengths), len(lengths)
    ids = torch.arange(rows * longest).reshape(rows, longest) % int(model.config.vocab_size)
    mask = torch.tensor([[int(i < length) for i in range(longest)] for length in lengths])
    sample = {"input_ids": ids, "attention_mask": mask}
    if getattr(model.config, "type_vocab_size", 0):
        sample["token_type_ids"] = torch.zeros_like(ids)
    return sample


def _bound(request: Any, names: frozenset[str], pooler: bool) -> Forward:
    def forward(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        given = {name: inputs.get(name, torch.zeros_like(inputs["input_ids"])) for name in names}
        out = request.infer({name: tensor.numpy() for name, tensor in given.items()})
        return torch.from_numpy(out[0].copy()), torch.from_numpy(out[1].copy()) if pooler else None

    return forward


def _agree(
    one: tuple[Tensor, Tensor | None], other: tuple[Tensor, Tensor | None], sample: Mapping[str, Tensor]
) -> bool:
    real = sample["attention_mask"].bool()
    a, b = one[0][real], other[0][real].float()
    if one[1] is not None and other[1] is not None:
        a, b = torch.cat([a, one[1]]), torch.cat([b, other[1].float()])
    return bool((a - b).abs().max() <= TOLERANCE * b.std())
