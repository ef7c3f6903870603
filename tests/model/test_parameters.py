"""The exact integer: as transformers builds the class named in `architectures`, without torch."""

import json
from pathlib import Path

import pytest

from memserve.errors import ModelUnreadable
from memserve.model import load, reader

ANSWERS = json.loads((Path(__file__).parents[1] / "data" / "parameters.json").read_text(encoding="utf-8"))


def named(row):
    return row["config"]["architectures"][0]


@pytest.mark.parametrize("folder", sorted(ANSWERS["published"]))
def test_published_configs(folder):
    name = folder.replace("--", "/", 1)
    assert load(name).parameters == ANSWERS["published"][folder]


def judged(rows):
    """Counts that are called exact and are not, and how many are exact and how many estimated."""
    wrong, exact, estimated = [], 0, 0
    for row in rows:
        try:
            found = reader.from_config(row["config"])
        except ModelUnreadable:
            continue
        exact, estimated = exact + found.exact, estimated + (not found.exact)
        if found.exact and found.parameters != row["parameters"]:
            wrong.append((named(row), found.parameters, row["parameters"]))
    return wrong, exact, estimated


def test_the_least_config_of_each_class():
    wrong, exact, estimated = judged(ANSWERS["defaults"])
    assert wrong == []
    assert exact >= 320
    assert estimated >= 200


def test_drawn_configs_of_each_recipe():
    wrong, exact, estimated = judged(ANSWERS["drawn"])
    assert wrong == []
    assert estimated == 0
    assert exact == len(ANSWERS["drawn"]) >= 1000


def test_the_answers_cover_what_was_promised():
    kinds = {row["config"]["model_type"] for row in ANSWERS["defaults"]}
    assert len(ANSWERS["published"]) >= 200
    assert len(kinds) >= 400
    drawn = {row["config"]["model_type"] for row in ANSWERS["drawn"]}
    assert {"bert", "gemma4", "glm4_moe", "deepseek_v4", "laguna", "jamba", "mamba"} <= drawn


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
