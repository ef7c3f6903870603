"""Errors are typed, say whether a retry can help, and come where the caller asked for them."""

import asyncio
import os
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, awaited, question, said, streamed
from memserve.errors import InvalidInput, MemserveError, UnknownName


def test_an_unknown_backend_is_named_with_its_neighbours(target: Any) -> None:
    with pytest.raises(UnknownName) as caught:
        memserve.generator("x", backend=f"{target.backend}x")
    assert str(target.backend) in str(caught.value)


def test_a_model_that_is_not_there_is_a_typed_error(target: Any, can: Any) -> None:
    if target.folder is None:
        pytest.skip("capability model: not a folder, so a missing one cannot be asked for")
    with pytest.raises(MemserveError) as caught:
        memserve.generator(str(target.folder / "not-there"), backend=target.backend, **target.options)
    assert "not-there" in str(caught.value)


def test_malformed_prompts_are_refused(generator: Any) -> None:
    prompts: list[Any] = [None, 7, {"role": "user"}, [{"role": "user"}], [3.5]]
    for prompt in prompts:
        with pytest.raises((InvalidInput, TypeError)):
            generator.generate(prompt, max_tokens=2)


def test_returned_errors_are_the_ones_that_would_be_raised(generator: Any, can: Any) -> None:
    endless = _endless(can)
    (returned,) = answer(generator, [endless], 2, on_error="return")
    with pytest.raises(MemserveError) as caught:
        answer(generator, [endless], 2)
    assert type(returned.error) is type(caught.value)
    assert isinstance(returned.error.retryable, bool)


def _endless(can: Any) -> str:
    if not can.context or can.context > 40_000:
        pytest.skip("capability context: nothing to overflow")
    return "word " * (int(can.context) + 16)


def test_one_prompt_keeps_its_error_too(generator: Any, can: Any) -> None:
    got = answer(generator, _endless(can), 2, on_error="return")
    assert isinstance(got.error, MemserveError)
    assert not got.text


def test_awaited_errors_come_where_they_were_asked_for(generator: Any, can: Any) -> None:
    endless = _endless(can)
    one = asyncio.run(awaited(generator, endless, 2, on_error="return"))
    good, bad = asyncio.run(awaited(generator, [question(1), endless], 2, on_error="return"))
    assert good.error is None
    assert isinstance(one.error, MemserveError)
    assert isinstance(bad.error, MemserveError)
    for prompt in (endless, [question(1), endless]):
        with pytest.raises(MemserveError):
            asyncio.run(awaited(generator, prompt, 2))


def test_a_stream_raises_its_error(generator: Any, can: Any) -> None:
    with pytest.raises(MemserveError):
        streamed(generator, _endless(can), 2)


def test_a_good_answer_has_no_error(generator: Any) -> None:
    assert answer(generator, question(1), 2).error is None


def test_errors_leave_the_engine_usable(generator: Any) -> None:
    before = answer(generator, question(1), 4)
    with pytest.raises(InvalidInput):
        answer(generator, "x", temperature=-5)
    after = answer(generator, question(1), 4)
    assert after.error is None
    assert said(before) == said(after) or not generator.capabilities.deterministic


# ---------------------------------------------------------------------- secrets


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
