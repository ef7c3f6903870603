"""Google's own SDK proves our fake honest: it reads what we read."""

from __future__ import annotations

import pytest
from extras import need


@pytest.fixture
def sdk(gemini):
    genai = need("google.genai", "oracles")
    client = genai.Client(
        api_key=gemini.key, http_options={"base_url": gemini.origin, "api_version": "v1beta"}
    )
    yield client
    client.close()


CONFIG = {"temperature": 0.0, "top_p": 1.0, "max_output_tokens": 7, "system_instruction": "be brief"}
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


def test_the_sdk_reads_the_same_answer(sdk, gemini, opened):
    theirs = sdk.models.generate_content(model="gemini-2.5-flash", contents="hi", config=CONFIG)
    ours = opened(gemini.origin).generate(TALK, max_tokens=7)
    assert theirs.text == ours.text
    assert theirs.candidates[0].finish_reason.value == "MAX_TOKENS"
    assert theirs.usage_metadata.candidates_token_count == ours.usage.completion_tokens
    assert theirs.usage_metadata.cached_content_token_count == ours.usage.cached_tokens
    first, second = gemini.seen
    assert first.path == second.path
    assert first.headers["x-goog-api-key"] == second.headers["x-goog-api-key"]
    assert _plain(first.json) == _plain(second.json)


def _plain(body):
    """The SDK names a role for the system instruction, which has none."""
    body.get("systemInstruction", {}).pop("role", None)
    return body


def test_the_sdk_reads_the_same_stream(sdk, gemini, opened):
    chunks = list(sdk.models.generate_content_stream(model="gemini-2.5-flash", contents="hi", config=CONFIG))
    deltas = list(opened(gemini.origin).stream(TALK, max_tokens=7))
    assert "".join(chunk.text or "" for chunk in chunks) == "".join(delta.text for delta in deltas)
    assert chunks[-1].usage_metadata.candidates_token_count == deltas[-1].usage.completion_tokens
    assert gemini.seen[0].path == gemini.seen[1].path


def test_the_sdk_reads_the_same_vectors(sdk, gemini, opened):
    config = {"task_type": "RETRIEVAL_QUERY", "output_dimensionality": 16}
    theirs = sdk.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=config)
    embedder = opened(gemini.origin, "gemini-embedding-001", task="embedder")
    ours = embedder.embed(["a", "b"], role="query", dimensions=16)
    for row, vector in zip(theirs.embeddings, ours.vectors, strict=True):
        assert vector.tolist() == pytest.approx(row.values, abs=1e-6)
    first, second = (seen.json["requests"] for seen in gemini.seen)
    assert [_embedded(each) for each in first] == [_embedded(each) for each in second]


def _embedded(asked):
    text = asked["content"]["parts"][0]["text"]
    return asked["model"], text, asked["taskType"], asked["outputDimensionality"]


def test_the_sdk_knows_our_errors(sdk, gemini):
    from google.genai import errors

    with pytest.raises(errors.ClientError, match="exceeds the maximum number"):
        sdk.models.generate_content(model="gemini-2.5-flash", contents="word " * 5000)
