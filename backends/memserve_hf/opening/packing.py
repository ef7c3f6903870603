"""Linear layers on a CPU through oneDNN, their weights packed once: two to three times as fast."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from memserve_hf.opening.device import Place
from memserve_hf.options import Options

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4
"""Of the largest output: float32 in another order of addition."""
_REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError)
log = logging.getLogger("memserve.hf")


class PackedLinear(torch.nn.Module):  # type: ignore[misc,unused-ignore]
    """A linear layer whose weight lies as oneDNN reads it. The plain weight is let go."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(plain.weight.detach())
        self.bias = plain.bias

    def forward(self, states: Tensor) -> Tensor:
        """The layer's output, in float32."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return made

    def plain(self) -> Any:
        """The layer as it was."""
        layer = torch.nn.Linear(
            self.in_features, self.out_features, bias=self.bias is not None, device="meta"
        )
        layer.weight = torch.nn.Parameter(self.weight.to_dense(), requires_grad=False)
        layer.bias = self.bias
        return layer


def pack(model: Any, options: Options, place: Place) -> None:
    """Pack every plain float32 linear layer of a model on a CPU, unless its answers change."""
    wanted = options.packed is not False and place.kind == "cpu" and options.device_map is None
    if not wanted or not torch.backends.mkldnn.is_available():
        return
    with torch.inference_mode():
        before = _answer(model)
        if before is None:
            return
        count = _replace(model, torch.nn.Linear, _packed)
        if not _alike(before, _answer(model)):
            # some models read the weights of their layers themselves (Mamba), and cannot read packed ones
            log.info("%s does not work with packed layers: they stay plain", type(model).__name__)
            _replace(model, PackedLinear, PackedLinear.plain)
            model.tie_weights()
            return
    log.debug("%d linear layers of %s are packed", count, type(model).__name__)


def _answer(model: Any) -> Tensor | None:
    """What the model makes of a few tokens; None where it asks for more than tokens."""
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = torch.tensor([[(7 + 13 * i) % vocabulary for i in range(6)]])
    try:
        made: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    except _REFUSALS as error:
        log.info("%s does not answer a few tokens: %s", type(model).__name__, error)
        return None
    return made


def _alike(before: Tensor, after: Tensor | None) -> bool:
    return after is not None and bool((after - before).abs().max() <= TOLERANCE * before.abs().max())


def _replace(model: Any, kind: type, made_of: Any) -> int:
    """Put something else in the place of every layer of a kind; layers that are shared stay shared."""
    made: dict[int, Any] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                if id(child) not in made:
                    made[id(child)] = made_of(child)
                setattr(parent, name, made[id(child)])
    return len(made)


def _packed(plain: Any) -> Any:
    """The packed layer, where its weight is float32 and oneDNN takes it."""
    if plain.weight.dtype != torch.float32:
        return plain
    try:
        return PackedLinear(plain)
    except _REFUSALS as error:
        log.info("a linear layer stays plain: %s", error)
        return plain
