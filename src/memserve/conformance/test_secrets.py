"""No key appears where people look: repr, attributes, capabilities, errors."""

import os
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from memserve.conformance.asking import answer, question
from memserve.errors import MemserveError

CANARY = "sk-canary-3f9a61c07d2b48e5"


def _secrets(target: Any) -> list[str]:
    named = [v for k, v in target.options.items() if re.search("key$|token$|secret|password", k)]
    known = [v for k, v in os.environ.items() if re.search("_(API_KEY|SECRET|TOKEN|PASSWORD)$", k)]
    return [CANARY, *(v for v in named + known if isinstance(v, str) and len(v) >= 12)]


@pytest.fixture
def keyed(target: Any, generator: Any) -> Iterator[Any]:
    """A generator that was opened with a key, where the backend takes one."""
    try:
        held = target.generator(api_key=CANARY)
    except (MemserveError, TypeError) as error:
        assert CANARY not in repr(error) + str(error)
        pytest.skip("capability backend: it takes no key")
    yield held
    held.close()


def _seen(held: Any) -> str:
    public = {name: getattr(held, name, None) for name in dir(held) if not name.startswith("_")}
    return repr(held) + str(held) + repr(held.capabilities) + repr(public)


def test_what_people_see_holds_no_secret(target: Any, generator: Any) -> None:
    seen = _seen(generator)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def _told(held: Any, prompt: str, **settings: Any) -> str:
    try:
        return repr(answer(held, prompt, 2, **settings))
    except MemserveError as error:
        return repr(error) + str(error) + repr(vars(error))


def test_a_key_is_shown_nowhere(target: Any, keyed: Any) -> None:
    shown = [_seen(keyed), repr(keyed.identity) if hasattr(keyed, "identity") else ""]
    shown += [_told(keyed, "x"), _told(keyed, "x", temperature=-1), _told(keyed, "word " * 50_000)]
    assert [secret for secret in _secrets(target) if any(secret in place for place in shown)] == []


def test_an_embedder_shows_no_secret(target: Any, embedder: Any) -> None:
    seen = _seen(embedder)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def test_errors_hold_no_secret(target: Any, generator: Any) -> None:
    with pytest.raises(MemserveError) as caught:
        answer(generator, "x", top_p=-1)
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
