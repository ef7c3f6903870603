"""Which layer attends how: `layer_types` where the config has it, else the rule of its family."""

from collections.abc import Callable

from memserve.model.config import Config

KINDS = {
    "full_attention": "full", "attention": "full", "sliding_attention": "sliding",
    "chunked_attention": "chunked", "linear_attention": "linear", "mamba": "mamba", "conv": "conv",
}  # fmt: skip
FULL, SLIDING = "full", "sliding"


def _every(period: int, first: int | None = None) -> Callable[[Config, int], str]:
    """Each n-th layer attends to all, from `first` on."""
    start = period - 1 if first is None else first
    return lambda _config, index: FULL if index % period == start else SLIDING


def _last(config: Config, index: int) -> str:
    windowed = config.raw("sliding_window") is not None and index >= config.size("max_window_layers", 0)
    return SLIDING if windowed else FULL


def _qwen(config: Config, index: int) -> str:
    windowed = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    return SLIDING if windowed and index >= config.size("max_window_layers", 0) else FULL


def _if_window(config: Config, _index: int) -> str:
    return SLIDING if config.raw("sliding_window") is not None else FULL


def _pattern(usual: int) -> Callable[[Config, int], str]:
    """Every n-th layer attends to all; or letters, `LLLG`: local, local, local, global, and again."""

    def kind(config: Config, index: int) -> str:
        written = config.raw("sliding_window_pattern", usual)
        if isinstance(written, str) and written:
            if index == config.layers() - 1:
                return FULL
            return SLIDING if written[index % len(written)] in "Ll" else FULL
        period = config.size("sliding_window_pattern", usual)
        return FULL if period and (index + 1) % period == 0 else SLIDING

    return kind


def _qwen_moe(config: Config, _index: int) -> str:
    windowed = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    return SLIDING if windowed else FULL


def _afmoe(config: Config, index: int) -> str:
    period = config.size("global_attn_every_n_layers", 4)
    return FULL if period and (index + 1) % period == 0 else SLIDING


def _llama4(config: Config, index: int) -> str:
    rotated = config.items("no_rope_layers")
    period = config.size("no_rope_layer_interval", 4)
    chunked = bool(rotated[index]) if rotated and index < len(rotated) else (index + 1) % period != 0
    return "chunked" if chunked else FULL


def _interval(config: Config, index: int) -> str:
    period = config.size("full_attention_interval", 4)
    return FULL if period and (index + 1) % period == 0 else "linear"


RULES: dict[str, Callable[[Config, int], str]] = {
    "none": lambda _config, _index: FULL, "window": _if_window, "qwen": _qwen, "qwen_moe": _qwen_moe,
    "pattern4": _pattern(4), "pattern6": _pattern(6), "llama4": _llama4, "afmoe": _afmoe,
    "mimo": lambda _config, index: FULL if index == 0 or (index + 1) % 6 == 0 else SLIDING,
    "linear": lambda _config, _index: "linear", "interval": _interval, "last": _last,
    "first4": _every(4, 0), "every2": _every(2), "every4": _every(4), "every5": _every(5),
    "every6": _every(6),
}  # fmt: skip


def kinds(config: Config, rule: str) -> list[str]:
    """One kind per layer."""
    count = config.layers()
    listed = config.items("layer_types")
    if not listed or rule == "ignore":
        found = RULES["none" if rule == "ignore" else rule]
        return [found(config, index) for index in range(count)]
    if len(listed) < count or not all(isinstance(kind, str) for kind in listed):
        config.bad("layer_types", f"must name the kind of each of the {count} layers")
    return [KINDS.get(kind, kind) for kind in listed[:count]]
