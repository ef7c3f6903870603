"""The catalogue: who is in it, by which names, and that every row says where it comes from."""

import json

import pytest
from counting import calls

from memserve import files
from memserve.errors import InvalidInput, UnknownName
from memserve.model import catalogue, load

HEAD, *ROWS = map(json.loads, catalogue.shipped())
IDS = [row["id"] for row in ROWS]


def test_size_and_sources():
    assert len(ROWS) >= 450
    assert len(set(IDS)) == len(IDS)
    for row in ROWS:
        assert row["source"] and catalogue.find(row["id"]).config["model_type"], row["id"]
        for checkpoint in row.get("checkpoints", ()):
            assert {"id", "method", "source"} <= checkpoint.keys()


def test_a_row_shares_the_configuration_of_another_that_has_its_own():
    for row in ROWS:
        if "as" in row:
            base = catalogue.find(row["as"])
            assert base.id == row["as"], row["id"]
            assert catalogue.find(row["id"]).config == {**base.config, **row.get("config", {})}


def test_words_of_sources_are_written_out():
    words = set(HEAD["sources"])
    for row in catalogue.rows():
        for source in (row.source, *(one.source for one in row.checkpoints)):
            assert not words & set(source.split("; ")), row.id


def _held(name):
    """Its own weights have at most 8 bits, or a checkpoint that GPU engines or llama.cpp load is known."""
    row = catalogue.find(name)
    if row is None:
        return False
    read = {"gptq", "awq", "fp8", "w8a8", "w4a16", "nvfp4", "nf4"}
    own = load(row.id).quantization is not None
    return own or any(one.method in read or one.method.startswith("gguf") for one in row.checkpoints)


def test_most_of_the_models_that_people_run_have_a_checkpoint():
    run = (files.beside(__file__, "../data/most_run.txt")).split()
    assert len(run) == 100
    assert sum(map(_held, run)) >= 90


def test_no_alias_means_two_models():
    owners = {}
    for row in ROWS:
        for alias in row.get("aliases", ()):
            assert owners.setdefault(catalogue.key(alias), row["id"]) == row["id"], alias


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_every_row_can_be_read(row):
    spec = load(row["id"])
    assert spec.id == row["id"]
    assert spec.parameters > 1_000_000
    assert spec.blocks and spec.hidden and spec.vocabulary
    assert spec.source.startswith("catalogue")
    assert all(block.weights for block in spec.blocks)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("llama-70b", "meta-llama/Llama-3.3-70B-Instruct"),
        ("Llama 3.1 8B", "meta-llama/Llama-3.1-8B-Instruct"),
        ("meta-llama/llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("llama-2-70b", "meta-llama/Llama-2-70b-chat-hf"),
        ("qwen3_32b", "Qwen/Qwen3-32B"),
        ("qwen2.5-72b", "Qwen/Qwen2.5-72B-Instruct"),
        ("mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("gemma-3-27b", "google/gemma-3-27b-it"),
        ("deepseek-r1", "deepseek-ai/DeepSeek-R1"),
        ("minimax-m2", "MiniMaxAI/MiniMax-M2"),
        ("gpt-oss-120b", "openai/gpt-oss-120b"),
        ("bge-m3", "BAAI/bge-m3"),
        ("stella", "NovaSearch/stella_en_1.5B_v5"),
        ("dragon", "facebook/dragon-plus-query-encoder"),
    ],
)
def test_aliases(alias, name):
    assert load(alias).id == name


def test_an_alias_says_which_model_it_took():
    assert load("llama-70b").notes == ("llama-70b means meta-llama/Llama-3.3-70B-Instruct",)
    assert load("meta-llama/Llama-3.3-70B-Instruct").notes == ()


@pytest.mark.parametrize(
    "family",
    ["llama-2-7b", "llama-3-8b", "llama-3.2-3b", "mistral-7b", "gemma-2b", "gemma-2-9b", "qwen1.5-7b",
     "qwen2-7b", "deepseek-v2", "deepseek-v3", "deepseek-r1-distill-qwen-32b", "glm-4-9b", "phi-3-mini",
     "phi-4",      "gte-qwen2", "contriever", "dpr", "e5-large", "minilm", "qwen3-embedding"],
)  # fmt: skip
def test_what_our_users_run_is_there(family):
    assert catalogue.find(family) is not None


def test_quantized_checkpoints_of_the_users_example():
    methods = {checkpoint.method: checkpoint for checkpoint in catalogue.checkpoints("llama-70b")}
    assert {"gptq", "awq", "fp8", "w8a8", "w4a16", "nf4"} <= methods.keys()
    assert methods["gptq"].bits == 4
    assert all(checkpoint.source for checkpoint in methods.values())


@pytest.mark.parametrize("name", ["lama-70b", "llama70", "mixtrall", "qwen3-32", "deepseekr1"])
def test_suggestions(name):
    try:
        load(name)
    except UnknownName as error:
        assert error.suggestions
        assert "did you mean" in error.message


@pytest.mark.parametrize(
    ("name", "says"),
    [("mlx-community/Qwen3-8B-4bit", "MLX.*Qwen/Qwen3-8B"),
     ("x/Llama-3.1-8B-Instruct-exl2", "EXL2.*Llama-3.1"),
     ("onnx-community/Qwen3-0.6B-ONNX", "ONNX"), ("llama3:70b-instruct-q4_K_M", "say .* gguf-q4_k_m"),
     ("qwen3:30b-a3b-q8_0", "say .* gguf-q8_0")],
)  # fmt: skip
def test_what_no_engine_loads_as_it_is_named_says_what_to_name(name, says):
    with pytest.raises(UnknownName, match=says):
        load(name)


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"])
def test_a_models_page_names_it(name):
    for page in ("https://huggingface.co/", "huggingface.co/", "hf.co/"):
        assert load(page + name) == load(name)


def test_a_fine_tunes_name_tells_what_it_may_be_like():
    assert catalogue.within("someone/Qwen2.5-14B-Instruct-Uncensored") == "Qwen/Qwen2.5-14B-Instruct"
    assert catalogue.within("someone/Cydonia-24B-v4") is None
    for row in catalogue.rows():
        name = row.id.rpartition("/")[2]
        assert catalogue.within(f"someone/{name}-finetuned") or len(catalogue.key(name)) < catalogue.DISTINCT


def test_a_known_model_is_next_to_no_work():
    load("llama-70b")
    assert calls(lambda: load("qwen3-14b")) < 5000
    assert calls(lambda: load("llama-70b")) < 100


def test_embedders_pool_whatever_their_config_says():
    for name in ("gte-qwen2", "e5-mistral", "qwen3-embedding", "stella"):
        assert load(name).pooling in ("last", "mean"), name


def test_positions_behind_the_padding_token():
    assert load("BAAI/bge-m3").max_context == 8192
    assert load("sentence-transformers/all-mpnet-base-v2").max_context == 512
    assert load("sentence-transformers/all-MiniLM-L6-v2").max_context == 512


@pytest.mark.parametrize("name", [None, 3, b"llama-8b", ""])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidInput, match="a model is a name"):
        load(name)
