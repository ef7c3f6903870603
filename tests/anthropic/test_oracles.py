"""Anthropic's own SDK proves our fake honest: it reads what we read."""

from __future__ import annotations

import pytest
from extras import need


@pytest.fixture
def sdk(claude):
    anthropic = need("anthropic", "oracles")
    with anthropic.Anthropic(base_url=claude.origin, api_key=claude.key, max_retries=0, timeout=5) as client:
        yield client


def test_the_sdk_reads_the_same_answer(sdk, claude, opened):
    theirs = sdk.messages.create(
        model="claude-sonnet-5", max_tokens=7, system="be brief", messages=[{"role": "user", "content": "hi"}]
    )
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    ours = opened(claude.origin, "claude-sonnet-5").generate(talk, max_tokens=7)
    assert theirs.content[0].text == ours.text
    assert theirs.stop_reason == "max_tokens"
    assert ours.finish_reason == "length"
    assert theirs.usage.output_tokens == ours.usage.completion_tokens
    assert theirs.usage.cache_read_input_tokens == ours.usage.cached_tokens
    first, second = claude.seen
    assert first.json == second.json
    assert first.path == second.path
    assert second.headers["x-api-key"] == claude.key  # the newest SDK sends it as a Bearer token


def test_the_sdk_reads_the_same_stream(sdk, claude, opened):
    with sdk.messages.stream(
        model="claude-sonnet-5", max_tokens=7, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        theirs = "".join(stream.text_stream)
        final = stream.get_final_message()
    deltas = list(opened(claude.origin, "claude-sonnet-5").stream("hi", max_tokens=7))
    assert "".join(delta.text for delta in deltas) == theirs
    assert deltas[-1].usage.completion_tokens == final.usage.output_tokens
    assert claude.seen[0].json == claude.seen[1].json


def test_the_sdk_counts_alike(sdk, claude, opened):
    theirs = sdk.messages.count_tokens(model="claude-sonnet-5", messages=[{"role": "user", "content": "a b"}])
    assert opened(claude.origin, "claude-sonnet-5").count_tokens("a b") == theirs.input_tokens


def test_the_sdk_knows_our_errors(sdk, claude):
    import anthropic

    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        sdk.messages.create(
            model="claude-sonnet-5", max_tokens=5, messages=[{"role": "user", "content": "word " * 5000}]
        )
