"""What a backend cannot honour is refused before any work; nothing is silently dropped."""

from __future__ import annotations

from typing import Any

import pytest

from memserve.conformance.asking import question
from memserve.errors import InvalidInput, Unsupported

ASKED: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "seed": 7,
    "n": 2,
    "logprobs": 1,
    "schema": {"type": "object", "properties": {}},
    "regex": "[ab]",
    "choices": ["a", "b"],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "temperature": 0.5,
    "top_p": 0.5,
    "max_tokens": 5,
    "stop": ["x"],
    "truncate": "left",
}


@pytest.mark.parametrize("setting", sorted(ASKED))
def test_a_setting_is_honoured_or_refused(generator: Any, can: Any, setting: str) -> None:
    settings = {"max_tokens": 3, setting: ASKED[setting]} if can.max_tokens else {setting: ASKED[setting]}
    if setting == "seed":
        settings["temperature"] = 1.0 if can.temperature else None
    settings = {key: value for key, value in settings.items() if value is not None}
    if getattr(can, setting):
        assert generator.generate(question(1), **settings).error is None
    else:
        with pytest.raises(Unsupported) as caught:
            generator.generate(question(1), **settings)
        assert setting in str(caught.value)
        assert can.backend in str(caught.value)


def test_images_are_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.images:
        pytest.skip("capability images: taken; what they show is not judged here")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(InvalidInput):
        generator.generate([{"role": "user", "content": [picture]}], max_tokens=2)


def test_raw_text_is_honoured_or_refused(generator: Any, can: Any) -> None:
    import memserve

    if can.raw:
        assert generator.generate(memserve.Raw("once"), max_tokens=2).error is None
    else:
        with pytest.raises(Unsupported):
            generator.generate(memserve.Raw("once"), max_tokens=2)


def test_token_ids_are_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.token_ids:
        assert generator.generate([5, 6, 7], max_tokens=2).error is None
    else:
        with pytest.raises(Unsupported):
            generator.generate([5, 6, 7], max_tokens=2)


def test_an_unknown_setting_is_refused(generator: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        generator.generate("x", max_tokens=2, warmth=3)


def test_another_providers_extra_is_refused(generator: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        generator.generate("x", max_tokens=2, extra={"nobody_special_mode": True})


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"n": 0}, {"temperature": float("nan")},
     {"logprobs": -1}, {"truncate": "right"}, {"stop": [""]}, {"on_error": "ignore"}],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused(generator: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=2, **bad)


def test_scoring_is_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.score:
        assert len(generator.score([("a", " b")])) == 1
    else:
        with pytest.raises(Unsupported):
            generator.score([("a", " b")])


def test_streaming_is_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.stream:
        assert list(generator.stream("x", max_tokens=2))
    else:
        with pytest.raises(Unsupported):
            list(generator.stream("x", max_tokens=2))
