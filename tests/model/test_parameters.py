"""The exact integer: as transformers builds the class named in `architectures`, without torch."""

import json
from pathlib import Path

import pytest
from extras import need

from memserve.model import load, reader

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "parameters.json").read_text(encoding="utf-8"))
# Shapes that depend on the values of tensors: refused, never guessed.
REFUSED = {"HieraModel", "HieraForPreTraining", "InklingModel", "InklingForConditionalGeneration"}


def named(row):
    return row["config"]["architectures"][0]


@pytest.mark.parametrize("folder", sorted(ANSWERS["published"]))
def test_published_configs(folder):
    name = folder.replace("--", "/", 1)
    assert load(name).parameters == ANSWERS["published"][folder]


def of_every_model_type():
    """One architecture of each model type, the generating one where there is one."""
    first = {}
    for row in ANSWERS["defaults"]:
        first.setdefault(row["config"]["model_type"], row)
    return list(first.values())


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(of_every_model_type()[::3], id="some"),
        pytest.param(ANSWERS["defaults"], id="all", marks=pytest.mark.slow),
    ],
)
def test_default_configs(rows):
    wrong = []
    for row in rows:
        if named(row) in REFUSED:
            continue
        found = reader.from_config(row["config"]).parameters
        if found != row["parameters"]:
            wrong.append((named(row), found, row["parameters"]))
    assert wrong == []


def test_the_answers_cover_what_was_promised():
    kinds = {row["config"]["model_type"] for row in ANSWERS["defaults"]}
    assert len(ANSWERS["published"]) >= 200
    assert len(kinds) >= 400
    assert {"bert", "xlm-roberta", "modernbert", "t5", "mpnet", "whisper", "mamba", "jamba", "bloom"} <= kinds


@pytest.mark.parametrize("architecture", ["HieraModel", "InklingModel"])
def test_what_needs_values_is_refused(architecture):
    from memserve.errors import ModelUnreadable

    rows = [row for row in ANSWERS["defaults"] if named(row) == architecture]
    for row in rows:
        with pytest.raises(ModelUnreadable, match=architecture):
            reader.from_config(row["config"])


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("llama-70b", 70553706496),
        ("mixtral-8x7b", 12879425536),
        ("deepseek-v3", 37552297984),
        ("gpt-oss-120b", 5712720384),
        ("qwen3-30b-a3b", 3352612864),
    ],
)
def test_active_parameters(name, active):
    assert load(name).active_parameters == pytest.approx(active, rel=2e-3)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "bge-m3", "gemma-3-4b", "openai-community/gpt2"])
def test_dense_models_are_wholly_active(name):
    spec = load(name)
    assert spec.active_parameters == spec.parameters


@pytest.mark.parametrize("name", ["llama-3.2-1b", "gemma-2-9b", "Qwen/Qwen3-4B", "google/gemma-3-4b-it"])
def test_tied_embeddings_are_read_twice_and_held_once(name):
    spec = load(name)
    heads = [weight for weight in spec.top if weight.part == "head"]
    assert [weight.tied for weight in heads] == [True]
    assert heads[0].parameters == 0
    assert spec.tied_embeddings


@pytest.mark.slow
@pytest.mark.engine("hf")
def test_against_transformers_itself():
    import sys

    need("torch", "hf")
    transformers = need("transformers", "hf")
    if transformers.__version__ != ANSWERS["transformers"]:
        pytest.skip(f"the answers are those of transformers {ANSWERS['transformers']}")
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import parameters

    sample = [row for row in ANSWERS["defaults"] if named(row).endswith("ForCausalLM")][::4]
    assert len(sample) > 30
    for row in sample:
        assert parameters.built(row["config"]) == row["parameters"], named(row)
