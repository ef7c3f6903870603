"""The hub, served on loopback: what is there, and every way it can fail."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memserve.model import hub

sys.path.insert(0, str(Path(__file__).parent))
from hub_server import CONFIG, TABLE, Hub

ASK = """
import json, sys
from memserve.errors import MemserveError
from memserve.model import load
try:
    spec = load(sys.argv[1])
    answer = {"id": spec.id, "parameters": spec.parameters, "source": spec.source,
              "exact": spec.exact}
except MemserveError as error:
    answer = {"error": type(error).__name__, "text": str(error)}
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def server():
    served = Hub()
    yield served
    served.close()


@pytest.fixture
def ask(server, tmp_path):
    """The library reads its settings when it is imported, so each question is a process of its own."""

    def run(name, **changes):
        theirs = ("HF_", "HUGGING_FACE_", "TRANSFORMERS_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(theirs)}
        env = {**kept, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
               "HF_HUB_DOWNLOAD_TIMEOUT": "3", **changes}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", ASK, name], env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_model_of_the_hub(ask):
    answer = ask("someone/there")
    assert answer["id"] == "someone/there"
    assert answer["parameters"] > 0
    assert answer["source"] == "hub: someone/there"


def test_the_cache_serves_without_the_hub(ask):
    first = ask("someone/there")
    again = ask("someone/there", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert again["parameters"] == first["parameters"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("someone/missing", "UnknownName", "someone/missing"),
        ("someone/gated", "PermissionDenied", "licence"),
        ("someone/empty", "ModelUnreadable", "config.json"),
        ("someone/cut", "ConnectionFailed", "someone/cut"),
    ],
)
def test_refusals(ask, name, error, word):
    answer = ask(name)
    assert answer["error"] == error, answer
    assert word in answer["text"]


@pytest.mark.slow
def test_a_hub_that_does_not_answer(ask):
    answer = ask("someone/slow")
    assert answer["error"] == "TimedOut", answer


def test_nobody_listens(ask):
    answer = ask("someone/there", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer["error"] == "ConnectionFailed" and "--like" in answer["text"]


def test_offline_is_offline(ask):
    answer = ask("someone/there", HF_HUB_OFFLINE="1")
    assert answer["error"] == "UnknownName"
    assert "give a folder" in answer["text"] and "--like" in answer["text"]


@pytest.mark.parametrize("name", ["a/b/c", "owner/", "/name", "own er/name", "owner/na me", "../x/y"])
def test_what_is_no_id_is_not_asked_for(ask, name):
    assert ask(name)["error"] in ("UnknownName", "ModelUnreadable")
    assert not hub.is_id(name)


def test_the_newest_snapshot_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for number, commit in enumerate(("old", "new")):
        folder = tmp_path / "models--a--b" / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(CONFIG))
        os.utime(folder, (number, number))
    assert hub.cached("a/b").name == "new"
    refs = tmp_path / "models--a--b" / "refs"
    refs.mkdir()
    (refs / "main").write_text("old")
    assert hub.cached("a/b").name == "old"
    assert hub.cached("a/c") is None


@pytest.mark.slow
def test_a_family_without_a_recipe_is_counted_by_range_requests(ask):
    answer = ask("owner/fresh")
    assert answer["exact"]
    assert answer["parameters"] == sum(math.prod(shape) for shape in TABLE.values())
