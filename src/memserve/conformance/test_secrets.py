"""No key appears where people look: repr, attributes, capabilities, errors."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from memserve.conformance.asking import answer, question
from memserve.errors import MemserveError


def _secrets(target: Any) -> list[str]:
    named = [str(v) for k, v in target.options.items() if "key" in k or "token" in k or "secret" in k]
    known = [v for k, v in os.environ.items() if k.endswith(("_API_KEY", "_SECRET", "_TOKEN")) and len(v) > 7]
    return named + known


def _seen(held: Any) -> str:
    public = {name: getattr(held, name, None) for name in dir(held) if not name.startswith("_")}
    return repr(held) + str(held) + repr(held.capabilities) + repr(public)


def test_what_people_see_holds_no_secret(target: Any, generator: Any) -> None:
    seen = _seen(generator)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def test_an_embedder_shows_no_secret(target: Any, embedder: Any) -> None:
    seen = _seen(embedder)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def test_errors_hold_no_secret(target: Any, generator: Any) -> None:
    with pytest.raises(MemserveError) as caught:
        generator.generate("x", max_tokens=-1)
    assert [secret for secret in _secrets(target) if secret in repr(caught.value) + str(caught.value)] == []


def test_the_generator_names_its_backend_in_one_line(target: Any, generator: Any) -> None:
    assert "\n" not in repr(generator)
    assert len(repr(generator)) < 300
    assert generator.capabilities.backend in repr(generator)


def test_answers_are_values(generator: Any) -> None:
    got = answer(generator, question(1), 3)
    assert pickle.loads(pickle.dumps(got)) == got
    with pytest.raises(AttributeError):
        got.text = "forged"


def test_capabilities_are_a_value(generator: Any) -> None:
    assert generator.capabilities == generator.capabilities
    with pytest.raises(AttributeError):
        generator.capabilities.seed = True
