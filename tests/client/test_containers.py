"""Columns of texts are lists of prompts; answers become plain values; an open generator is not sent."""

from __future__ import annotations

import copy
import functools
import json
import pickle

import numpy as np
import pytest

import memserve
from memserve import errors, registry
from memserve.client.prompts import plain
from memserve.protocol import (
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    Ranking,
    Sample,
    Score,
    TokenLogprob,
    ToolCall,
    Usage,
)

KNOWN = Capabilities(
    backend="toy", tasks=frozenset({"generate", "embed", "rerank"}), chat=True, token_ids=True, raw=True
)


class Engine:
    """Says what it was asked."""

    capabilities = KNOWN

    def generate(self, requests):
        return [Completion(text=repr(request.prompt)) for request in requests]

    def embed(self, texts, *, role, normalize, dimensions):
        assert all(type(text) is str or isinstance(text, np.str_) for text in texts)
        return Embeddings(np.ones((len(texts), 2), np.float32))

    def rerank(self, query, documents):
        return Ranking(tuple(float(len(text)) for text in documents))

    def open(self, model=None, *, task="generate", **options):
        return self


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setattr(registry, "find", lambda name: Engine())


def _columns():
    """Containers of the texts a, b, c, as far as their libraries are here."""
    texts = ["a", "b", "c"]
    yield np.array(texts)
    yield np.array(texts, dtype=object)
    yield [np.str_(text) for text in texts]
    for name, make in (
        ("pandas", lambda pandas: pandas.Series(texts)),
        ("pandas", lambda pandas: pandas.Series(texts, index=[7, 8, 9]).iloc[::1]),
        ("pandas", lambda pandas: pandas.Index(texts)),
        ("pyarrow", lambda pyarrow: pyarrow.array(texts)),
        ("pyarrow", lambda pyarrow: pyarrow.chunked_array([texts[:1], texts[1:]])),
        ("pyarrow", lambda pyarrow: list(pyarrow.array(texts))),
        ("polars", lambda polars: polars.Series(texts)),
    ):
        try:
            module = __import__(name)
        except ImportError:
            continue
        yield make(module)


@pytest.mark.parametrize("column", list(_columns()), ids=lambda column: type(column).__module__)
def test_a_column_of_texts_is_a_list_of_prompts(column):
    with memserve.generator("m", backend="toy") as generator:
        texts = [answer.text.strip("np.str_()'") for answer in generator.generate(column)]
        assert texts == ["a", "b", "c"]
    with memserve.embedder("m", backend="toy") as embedder:
        assert embedder.embed(column).vectors.shape == (3, 2)
    with memserve.reranker("m", backend="toy") as reranker:
        assert reranker.rerank("q", column).scores == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("one", [np.str_("a"), np.array("a"), np.array([1, 2]), (np.int64(1), 2)])
def test_scalars_and_rows_of_ids_are_one_prompt(one):
    with memserve.generator("m", backend="toy") as generator:
        assert isinstance(generator.generate(one), Completion)


class Table:
    columns = ("text", "other")


@pytest.mark.parametrize("wrong", [Table(), [None, "a"], np.array([["a"]]), [float("nan")]])
def test_what_holds_no_texts_is_refused(wrong):
    with memserve.generator("m", backend="toy") as generator, pytest.raises(errors.InvalidInput):
        generator.generate(wrong)
    with memserve.embedder("m", backend="toy") as embedder, pytest.raises(errors.InvalidInput):
        embedder.embed(wrong)


def test_other_values_stay_as_they_are():
    value = object()
    assert plain(value) is value


ANSWERS = [
    Completion(
        text="hi", finish_reason="stop", token_ids=(1, 2), usage=Usage(3, 2),
        logprobs=(TokenLogprob("h", -0.5, 1, (("h", -0.5), ("x", float("-inf")))),
                  TokenLogprob("i", float("nan"))),
        tool_calls=(ToolCall("1", "f", "{}"),), samples=(Sample("hi"), Sample(None, refusal="no")),
    ),
    Completion(text=None, error=errors.Throttled("slower")),
    Delta("a", usage=Usage(1)), Score(-1.5, 2, greedy=True), Usage(), Sample("a"),
    Embeddings(np.array([[1.5, -2]], np.float32)), Ranking((0.5, float("nan"))),
]  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: type(answer).__name__)
def test_answers_become_plain_values(answer):
    row = answer.to_dict()
    assert list(row) == list(vars(answer))
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_what_the_plain_values_are():
    row = ANSWERS[0].to_dict()
    assert row["usage"]["prompt_tokens"] == 3
    assert row["samples"][1]["refusal"] == "no"
    assert row["logprobs"][0]["top"] == [["h", -0.5], ["x", None]]
    assert ANSWERS[1].to_dict()["error"] == {"type": "Throttled", "message": "slower", "retryable": True}
    assert ANSWERS[6].to_dict()["vectors"] == [[1.5, -2.0]]


@pytest.mark.parametrize("opener", [memserve.generator, memserve.embedder, memserve.reranker])
@pytest.mark.parametrize("send", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_open_generator_says_what_to_send_instead(opener, send):
    with opener("m", backend="toy") as opened, pytest.raises(errors.InvalidInput) as told:
        send(opened)
    assert f"functools.partial(memserve.{opener.__name__}" in str(told.value)


def test_what_it_says_to_send_is_right():
    again = pickle.loads(pickle.dumps(functools.partial(memserve.generator, "m", backend="toy")))
    with again() as generator:
        assert generator.generate("a").text == "'a'"
