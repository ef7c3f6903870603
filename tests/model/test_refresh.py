"""`memserve models --refresh`: what a hub on loopback says is told once, kept, and planned with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memserve.model import catalogue, load, reader
from memserve.model.refresh import METHODS, least

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import COMMIT, Hub


@pytest.fixture(scope="module")
def server():
    served = Hub()
    yield served
    served.close()


@pytest.fixture
def memserve(server, tmp_path):
    def run(*words, **changes):
        theirs = ("HF_", "HUGGING_FACE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(theirs)}
        env = {**kept, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
               "MEMSERVE_CONFIG_DIR": str(tmp_path), **changes}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "memserve", *words], env=env, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout, done.stderr

    return run


def changes(answer):
    assert answer[0] == 0, answer
    return {(one["what"], one["after"]) for one in json.loads(answer[1])["changes"]}


@pytest.mark.slow
def test_what_is_new_is_told_once_and_kept(memserve, tmp_path):
    first = changes(memserve("models", "--refresh", "someone/there", "--json"))
    assert {after for what, after in first if what == "checkpoint"} == {
        "RedHatAI/there-FP8-dynamic (fp8)", "unsloth/there-GGUF (gguf-q4_k_m)",
    }  # fmt: skip
    assert any(what == "new" for what, _ in first)
    assert changes(memserve("models", "--refresh", "someone/there", "--json")) == set()
    code, said, _ = memserve("plan", "someone/there", "--gpus", "1xL4", "--json", HF_HUB_OFFLINE="1")
    assert code == 0
    assert COMMIT in (tmp_path / catalogue.OWN).read_text()
    assert json.loads(said)["model"]["id"] == "someone/there"


@pytest.mark.slow
def test_what_is_otherwise_at_the_hub_is_told(memserve):
    told = changes(memserve("models", "--refresh", "meta-llama/Llama-3.1-8B-Instruct", "--json"))
    assert {"parameters", "layers", "hidden", "vocabulary"} <= {what for what, _ in told}


def test_what_the_hub_lacks_is_told(memserve):
    code, said, _ = memserve("models", "--refresh", "someone/missing")
    assert code == 1
    assert "someone/missing: unknown" in said


def test_a_hub_that_lists_nothing_is_told(memserve, tmp_path):
    code, said, _ = memserve("models", "--refresh", "someone/unlisted")
    assert code == 1 and "someone/unlisted: unread" in said and "does not list" in said
    assert not (tmp_path / catalogue.OWN).exists()


def test_a_row_of_ones_own_changes_no_row_that_shares_the_shipped_one(tmp_path):
    shared = next(row for row in map(json.loads, catalogue.shipped()) if "as" in row)
    own = {"id": shared["as"], "aliases": [], "source": "here", "config": {"model_type": "llama"}}
    (tmp_path / catalogue.OWN).write_text(f"{json.dumps(own)}\n")
    asked = "import json, sys; from memserve.model import catalogue; "
    asked += "print(json.dumps([catalogue.find(name).config for name in sys.argv[1:]]))"
    done = subprocess.run(
        [sys.executable, "-c", asked, shared["as"], shared["id"]], capture_output=True, text=True, check=True,
        env={**os.environ, "MEMSERVE_CONFIG_DIR": str(tmp_path)},
    )  # fmt: skip
    assert json.loads(done.stdout) == [own["config"], catalogue.find(shared["id"]).config]


def test_a_spoiled_catalogue_is_named(memserve, tmp_path):
    (tmp_path / catalogue.OWN).write_text('{"id": "a/b"}\n')
    code, _, said = memserve("plan", "llama-8b", "--gpus", "1xL4")
    assert code == 2
    assert str(tmp_path) in said and "--refresh" in said


def test_the_least_configuration_means_the_same():
    config = {**catalogue.find("qwen3-8b").config, "use_cache": True, "bos_token_id": 151643}
    kept = least(config)
    assert "use_cache" not in kept
    assert reader.from_config(kept) == reader.from_config(config)
    assert {"hidden_size", "num_hidden_layers", "vocab_size"} <= kept.keys()
    assert load("qwen3-8b").parameters == reader.from_config(kept).parameters


def test_methods_are_the_planners():
    known = {one.method for row in catalogue.rows() for one in row.checkpoints}
    assert {method for _, method in METHODS} <= known
