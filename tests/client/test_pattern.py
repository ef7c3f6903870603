"""Expressions of a stranger's config.json: the same answers as `re` gives, in bounded time."""

import random
import re
import sys
from itertools import product

import pytest

from memserve.pattern import Budget, matcher

NAMES = [
    f"model.layers.{layer}.{part}"
    for layer, part in product(
        (0, 7, 31), ("self_attn.q_proj", "mlp.gate", "mlp.experts.3.down_proj", "input_layernorm")
    )
] + ["lm_head", "model.embed_tokens", "visual.blocks.0.attn.qkv", ""]
REAL = [
    r".*lm_head",
    r".*self_attn.*",
    r".*mlp.gate$",
    r"model\.layers\.\d+\.mlp\.gate",
    r"visual.*",
    r".*\.(q|k|v)_proj",
    r".*[^x]proj",
    r".*mlp.(gate|up|gate_up|down)_proj.*",
    r"^(?!.*experts).*$",
    r".*layers\.(0|1[0-9])\..*",
    r".*mlp.*gate.*",
    r".+?head",
    r"(?:model\.)?layers\.[0-9]+\.self_attn\.[qkv]_proj$",
    r".*\.layers\.\d{1,2}\..*norm",
    r"(visual|model)\..+",
    r"(model\.)*layers.*",
    r"(?=.*mlp).*gate",
]
EVIL = [
    "(.*)*(.*)*!", "(a+)+$", "(.|.)*!", "((.*)*)*!", ".*" * 12 + "!", "(.?){40}.{40}!", "(x+x+)+y",
    "(.*){99}!", "(?!(.*)*!)(.*)*!", "(" * 400, "((((((((.*)*)*)*)*)*)*)*)*!", ".{0,99}" * 60 + "!",
    ".?" * 40 + "!", "(.|.)" * 40 + "!", "(?:" * 100 + "!",
]  # fmt: skip


@pytest.mark.parametrize("text", REAL)
def test_good_expressions_count_as_ever(text: str) -> None:
    matches = matcher(text, Budget())
    assert matches is not None
    assert [matches(name) for name in NAMES] == [re.match(text, name) is not None for name in NAMES]


def _random(dice: random.Random, depth: int = 0) -> str:
    atom = dice.choice(["a", "b", ".", r"\d", "[ab]", r"\.", "(", "(?:"] if depth < 3 else ["a", "."])
    if atom.startswith("("):
        atom += "|".join(_random(dice, depth + 1) for _ in range(dice.choice([1, 1, 2]))) + ")"
    atom += dice.choice(["", "", "", "?", "*", "+", "{1,2}", "*?"])
    return (
        atom + (_random(dice, depth) if dice.random() < 0.6 else "") + ("$" if dice.random() < 0.05 else "")
    )


def test_it_answers_as_the_library_does() -> None:
    dice, compared = random.Random(14), 0
    for _ in range(3000):
        text = _random(dice)
        matches = matcher(text, Budget())
        assert matches is not None, text
        for _ in range(3):
            name = "".join(dice.choice("ab.1") for _ in range(dice.randrange(7)))
            assert matches(name) == (re.match(text, name) is not None), (text, name)
            compared += 1
    assert compared == 9000


@pytest.mark.sampled(4)
@pytest.mark.parametrize("text", EVIL)
def test_a_hostile_expression_ends(text: str) -> None:
    """Counted, not timed: calls and lines of Python are what a bound is about."""
    steps = 0

    def count(*_: object) -> object:
        nonlocal steps
        steps += 1
        assert steps < 60_000_000
        return None

    budget = Budget()
    matches = matcher(text, budget)
    sys.setprofile(count)
    try:
        for name in NAMES * 20:
            if matches is not None:
                matches(name + "a" * 60)
    finally:
        sys.setprofile(None)


def test_the_planner_ends_with_it(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from memserve.plan.__main__ import main

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
        "vocab_size": 32000, "intermediate_size": 4096, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 4,
        "quantization_config": {
            "quant_method": "compressed-tensors", "format": "float-quantized",
            "ignore": [f"re:{text}" for text in EVIL] * 3, "config_groups": {"group_0": {
                "targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
                "input_activations": {"num_bits": 8, "type": "float", "dynamic": True}}},
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main([str(tmp_path), "--gpus", "1xL4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"]
