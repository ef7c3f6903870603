"""Gemma 3n's words: several residual streams, a low-rank detour, inputs of its own for each layer."""

from dataclasses import replace

from memserve.model.config import Config
from memserve.model.recipes import decoder, gemma, modules
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Block

FAMILY = gemma.FAMILY._replace(windows="every5")


def _widths(config: Config) -> list[int]:
    """The feed-forward width of each layer: one for all, or a list."""
    listed, count = config.raw("intermediate_size"), config.layers()
    if not isinstance(listed, list):
        return [config.size("intermediate_size")] * count
    if len(listed) != count or not all(isinstance(one, int) and 0 < one < 1 << 30 for one in listed):
        config.bad("intermediate_size", f"must have a width for each of the {count} layers")
    return listed


def _block(config: Config, kind: str, source: int | None, width: int) -> Block:
    hidden, streams = config.size("hidden_size"), config.size("altup_num_inputs")
    rank, each = config.size("laurel_rank"), config.size("hidden_size_per_layer_input")
    size = decoder.head_sizes(config)
    weights = (
        *gemma.without_keys(decoder.attention(config, FAMILY, size), shared=source is not None),
        *decoder.dense_mlp(config, FAMILY, width),
        *decoder.norms(config, FAMILY),
        *modules.vector("altup.correct_output_scale", hidden),
        *modules.vector("altup.correction_coefs", streams, streams),
        *modules.vector("altup.prediction_coefs", streams**2, streams),
        *modules.vector("altup.modality_router", streams, hidden),
        *modules.norm("altup.router_norm", hidden),
        *modules.linear("laurel.linear_left", rank, hidden, part="other"),
        *modules.linear("laurel.linear_right", hidden, rank, part="other"),
        *modules.norm("laurel.post_laurel_norm", hidden),
        *gemma.own_input(hidden, each),
    )
    return Block(replace(decoder.mixer_of(kind, config, size), shares_cache_of=source), weights)


def text(config: Config, architecture: str) -> Inventory:
    """All layers, and the tables beside the tokens'."""
    hidden, streams = config.size("hidden_size"), config.size("altup_num_inputs")
    sources = gemma.sources(config, decoder.kinds(config, FAMILY.windows))
    keys = [(*key, width) for key, width in zip(sources, _widths(config), strict=True)]
    blocks = decoder.distinct(keys, lambda key: _block(config, *key))
    body = decoder.assemble(config, FAMILY, blocks)._replace(intermediate=max(_widths(config)))
    others = max(streams - 1, 0)
    body = body.adding(
        stem=(
            *gemma.own_inputs(config, config.size("hidden_size_per_layer_input")),
            *modules.linear("altup_projections", hidden, hidden, part="other", count=others),
        ),
        top=modules.linear("altup_unembed_projections", hidden, hidden, part="other", count=others),
    )
    return modules.with_head(config, body, architecture, FAMILY)


RECIPES: dict[str, Recipe] = {"gemma3n_text": text}
