"""What Pangu cannot do is refused before anything is sent."""

from __future__ import annotations

import pytest

import memserve
from memserve import errors

SETTINGS = {
    "seed": 1, "logprobs": 1, "schema": {"type": "object"}, "regex": "a", "choices": ["a"], "top_k": 3,
    "min_p": 0.1, "stop": ["a"], "truncate": "left", "n": 3,
    "temperature": 1.5, "tools": [{"type": "function", "function": {"name": "f"}}],
}  # fmt: skip


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_v1_refuses(setting, pangu, opened):
    with pytest.raises(errors.Unsupported, match=setting) as caught:
        opened(pangu.origin, api_key=pangu.key).generate("hi", **{setting: SETTINGS[setting]})
    assert caught.value.backend == "pangu"
    assert pangu.seen == []


def test_a_stream_carries_one_sample(pangu, opened):
    with pytest.raises(errors.Unsupported, match="n"):
        list(opened(pangu.origin, api_key=pangu.key).stream("hi", n=2))


def test_scores_counts_and_vectors_are_refused(pangu, opened):
    generator = opened(pangu.origin, api_key=pangu.key)
    with pytest.raises(errors.Unsupported):
        generator.score([("a", "b")])
    with pytest.raises(errors.Unsupported):
        generator.count_tokens("a")
    with pytest.raises(errors.Unsupported):
        memserve.embedder("m", backend="pangu", base_url=pangu.origin, api_key="k")


def test_extras_carry_the_prefix(pangu, opened):
    generator = opened(pangu.origin, api_key=pangu.key)
    generator.generate("hi", max_tokens=2, pangu_user="me", pangu_presence_penalty=0.5)
    assert pangu.seen[0].json["user"] == "me"
    with pytest.raises(errors.Unsupported):
        generator.generate("hi", openai_user="me")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"base_url": "https://x", "api": "legacy", "api_key": "k"}, "unknown api"),
        ({"api": "inputs", "api_key": "k"}, "base_url"),
        ({"api": "modelarts", "api_key": "k"}, "base_url"),
        ({"api": "v2", "api_key": "k"}, "base_url"),
        ({"model": None, "project_id": "p", "api_key": "k"}, "deployment_id"),
        ({"deployment_id": "d", "api_key": "k"}, "project_id"),
        ({"base_url": "https://x", "api": "v2", "ak": "a", "sk": "s"}, "API key alone"),
        ({"base_url": "https://x", "api": "v2", "token": "t"}, "API key alone"),
        ({"base_url": "https://x", "api": "v3", "api_key": "k"}, "unknown api"),
        ({"base_url": "https://x"}, "credentials"),
        ({"base_url": "https://x/deployments/d", "ak": "a"}, "sk="),
        ({"base_url": "https://x/deployments/d", "user": "u", "password": "p"}, "domain="),
        ({"base_url": "https://x/deployments/d", "api_key": "k", "token": "t"}, "one kind"),
        ({"base_url": "https://x/deployments/d", "api_key": "k", "colour": "red"}, "colour"),
    ],
)
def test_options_that_make_no_sense(options, match):
    with pytest.raises(errors.InvalidInput, match=match):
        memserve.generator(**{"model_or_plan": options.pop("model", "m"), "backend": "pangu", **options})
