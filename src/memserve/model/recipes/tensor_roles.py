"""What a weight is for, and how tensor parallelism splits it, from its name in transformers and its shape."""

import re
from functools import cache

from memserve.model.spec import Part, Shard, Weight

_TABLE = (
    r"(embed_tokens\w*|word_embeddings?|wte|tok_embeddings|tokens_embed|embed_in|token_embd|input_embedding)$"
)
_SHARDS: tuple[tuple[str, Shard], ...] = (
    (_TABLE, "vocab"),
    (r"(^|\.)(shared|lm_head|embed_out|predictions\.decoder|embeddings|head)$", "vocab"),
    (r"(k_proj|v_proj|key|value|k_lin|v_lin)$", "kv"),
    (r"(q_proj|query|qkv|qkv_proj|query_key_value|c_attn|Wqkv|in_proj|q_b_proj|kv_b_proj|q_lin)$", "column"),
    (r"(gate_proj|up_proj|gate_up_proj|fc1|fc_in|c_fc|w1|w3|wi|wi_0|wi_1|lin1|Wi|dense_h_to_4h)$", "column"),
    (
        r"(intermediate\.dense|SelfAttention\.[qkv]|EncDecAttention\.[qkv]|input_linear|output_gate)$",
        "column",
    ),
    (r"(W_pack|dt_proj|dt_proj_weight|receptance|linear_[xy]|linear_attn\.g_proj)$", "column"),
    (r"(o_proj|out_proj|c_proj|down_proj|fc2|fc_out|w2|wo|Wo|lin2|out_lin|dense_4h_to_h)$", "row"),
    (
        r"(output_linear|output\.dense|SelfAttention\.o|EncDecAttention\.o|linear_out|x_proj|x_proj_weight)$",
        "row",
    ),
    (r"(self_attention\.dense|attention\.dense|self_attn\.dense)$", "row"),
)
_PARTS: tuple[tuple[str, Part], ...] = (
    (r"(norm|ln_\w+|layernorm|LayerNorm|layer_norm\w*|ln\d?)$", "norm"),
    (r"(position|embed_positions|wpe|pos_emb)", "position"),
    (r"(lm_head|embed_out|classifier|score|qa_outputs|cls\.|predictions|pooler|^head$)", "head"),
    (_TABLE, "embedding"),
    (r"((^|\.)shared$|(^|\.)embeddings?(\.|$))", "embedding"),
    (r"(shared_expert)", "shared_expert"),
    (r"(experts?\b)", "expert"),
    (r"(router|\bgate$|gate\.(wg|weight)|e_score)", "router"),
    (r"(attn|attention|Attention|q_proj|k_proj|v_proj|o_proj)", "attention"),
    (r"(mlp|ffn|fc\d|feed_forward|intermediate|DenseReluDense|gate_proj|up_proj|down_proj)", "mlp"),
    (r"(^|\.)(wi|wo|output\.dense)$", "mlp"),
    (r"(mamba|mixer|conv|A_log|dt_bias|time_mix|channel_mix|temporal_block|mlstm)", "mixer"),
)


@cache
def _part(name: str) -> Part:
    return next((part for pattern, part in _PARTS if re.search(pattern, name)), "other")


@cache
def _shard(name: str) -> Shard:
    return next((shard for pattern, shard in _SHARDS if re.search(pattern, name)), "replicated")


def weight(name: str, shape: tuple[int, ...]) -> Weight:
    """One weight of transformers' naming: its role, its split, and whether quantization may replace it."""
    plain = re.sub(r"\.\d+(?=\.|$)", "", name)
    bias = plain.endswith((".bias", "_bias"))
    base = plain.removesuffix(".weight").removesuffix(".bias").removesuffix("_bias").removesuffix(".linear")
    part, shard = _part(base), _shard(base)
    short = name.removesuffix(".weight")
    if part == "expert":
        fused = len(shape) == 3 or (bias and len(shape) == 2)
        count, rest = (shape[0], shape[1:]) if fused else (1, shape)
        return Weight(short, part, rest, "expert", count, linear=not bias and len(rest) == 2)
    if bias and shard == "row":
        shard = "replicated"
    matrix = len(shape) == 2 and not bias and part not in ("norm", "position", "embedding")
    return Weight(short, part, shape, shard, linear=matrix and name.endswith(".weight"))
