"""Errors are typed, say whether a retry can help, and come where the caller asked for them."""

import asyncio
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, awaited, heat, limited, need, question, said, streamed, worded
from memserve.errors import InvalidInput, MemserveError, UnknownName, Unsupported


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


# ---------------------------------------------------------------------- unsupported


ASKED: dict[str, Any] = {
    "top_k": 5, "min_p": 0.1, "seed": 7, "n": 2, "logprobs": 1,
    "schema": {"type": "object", "properties": {}}, "regex": "[ab]", "choices": ["a", "b"],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    "temperature": 0.5, "top_p": 0.5, "max_tokens": 5, "stop": ["x"], "truncate": "left",
}  # fmt: skip


@pytest.mark.parametrize("setting", sorted(ASKED))
def test_a_setting_is_honoured_or_refused(generator: Any, can: Any, setting: str) -> None:
    settings: dict[str, Any] = {setting: ASKED[setting]}
    if setting == "seed" and can.temperature:
        settings["temperature"] = heat(generator, 1.0)
    if setting == "temperature":
        settings["temperature"] = heat(generator, 0.5)
    if setting == "n" and can.n and (can.max_n or 2) < 2:
        pytest.skip("capability max_n: one sample only")
    prompt = worded(can, question(1))
    if getattr(can, setting):
        assert generator.generate(prompt, **limited(can, 3, settings)).error is None
    else:
        with pytest.raises(Unsupported) as caught:
            generator.generate(prompt, **limited(can, 3, settings))
        assert setting in str(caught.value)
        assert can.backend in str(caught.value)


def test_what_is_over_a_limit_is_refused(generator: Any, can: Any) -> None:
    """Each number among the capabilities is the most that is taken, and is taken."""
    over: list[dict[str, Any]] = [{"logprobs": can.logprobs + 1}]
    if can.n and can.max_n:
        over.append({"n": can.max_n + 1, **({"temperature": heat(generator)} if can.temperature else {})})
    if can.stop and can.max_stop:
        over.append({"stop": [f"\u2603 {n}" for n in range(can.max_stop + 1)]})
    if can.temperature and can.max_temperature is not None:
        over.append({"temperature": can.max_temperature + 0.5})
    for settings in over:
        with pytest.raises(Unsupported):
            answer(generator, question(1), 3, **settings)
    if can.logprobs:
        told = answer(generator, question(1), 3, logprobs=can.logprobs).logprobs
        assert all(can.logprobs <= len(entry.top) <= can.logprobs + 1 for entry in told)


@pytest.mark.parametrize(
    "setting", ["top_k", "min_p", "seed", "schema", "regex", "choices", "tools", "warmth"]
)
def test_refusals_hold_however_it_is_asked(generator: Any, can: Any, setting: str) -> None:
    if getattr(can, setting, False):
        pytest.skip(f"capability {setting}: honoured, so there is nothing to refuse")
    settings: dict[str, Any] = {setting: ASKED.get(setting, 3)}
    with pytest.raises((InvalidInput, TypeError)):
        asyncio.run(awaited(generator, question(1), 3, **settings))
    with pytest.raises((InvalidInput, TypeError)):
        answer(generator, [question(1), question(2)], 3, **settings)
    if can.stream:
        with pytest.raises((InvalidInput, TypeError)):
            streamed(generator, question(1), 3, **settings)


def test_a_stream_carries_one_sample(generator: Any, can: Any) -> None:
    need(can, "stream")
    with pytest.raises(InvalidInput):
        streamed(generator, question(1), 3, n=2)


def test_counting_is_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.count_tokens:
        assert generator.count_tokens(worded(can, question(1))) > 0
    else:
        with pytest.raises(Unsupported):
            generator.count_tokens(question(1))


def test_the_tokenizer_is_lent_or_refused(generator: Any, can: Any) -> None:
    if not can.tokenizer:
        with pytest.raises(Unsupported):
            generator.encode("x")
        with pytest.raises(Unsupported):
            generator.score_text(["x"])
        pytest.skip("capability tokenizer: refused, as it should be")
    ids = generator.encode("The river runs, 12 lamps")
    assert generator.encode(generator.decode(ids)) == ids
    if can.count_tokens and can.raw:
        assert generator.count_tokens(memserve.Raw("The river runs, 12 lamps")) - len(ids) in (0, 1)


def test_the_task_is_among_the_capabilities(can: Any) -> None:
    assert "generate" in can.tasks


def test_images_are_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.images:
        pytest.skip("capability images: taken; what they show is not judged here")
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    with pytest.raises(InvalidInput):
        generator.generate([{"role": "user", "content": [picture]}], **limited(can, 2, {}))


def test_raw_text_is_honoured_or_refused(generator: Any, can: Any) -> None:
    import memserve

    if can.raw:
        assert generator.generate(memserve.Raw("once"), **limited(can, 2, {})).error is None
    else:
        with pytest.raises(Unsupported):
            generator.generate(memserve.Raw("once"), **limited(can, 2, {}))


def test_token_ids_are_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.token_ids:
        assert generator.generate([5, 6, 7], **limited(can, 2, {})).error is None
    else:
        with pytest.raises(Unsupported):
            generator.generate([5, 6, 7], **limited(can, 2, {}))


def test_an_unknown_setting_is_refused(generator: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        answer(generator, "x", 2, warmth=3)


def test_another_providers_extra_is_refused(generator: Any) -> None:
    with pytest.raises((InvalidInput, TypeError)):
        answer(generator, "x", 2, extra={"nobody_special_mode": True})


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"n": 0}, {"temperature": float("nan")},
     {"logprobs": -1}, {"truncate": "right"}, {"stop": [""]}, {"on_error": "ignore"}],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused(generator: Any, bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        answer(generator, "x", 2, **bad)


def test_scoring_is_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.score:
        assert len(generator.score([("a", " b")])) == 1
    else:
        with pytest.raises(Unsupported):
            generator.score([("a", " b")])


def test_streaming_is_honoured_or_refused(generator: Any, can: Any) -> None:
    if can.stream:
        assert streamed(generator, "x", 2)
    else:
        with pytest.raises(Unsupported):
            list(generator.stream(worded(can, "x"), **limited(can, 2, {})))


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


# ---------------------------------------------------------------------- entrance


HEAVY = (
    "torch", "transformers", "vllm", "sglang", "torch_npu", "bitsandbytes", "httpx", "aiohttp", "requests",
    "pydantic", "numpy", "openai",
)  # fmt: skip
ENGINES = (
    "torch", "transformers", "vllm", "sglang", "lmdeploy", "llama_cpp", "openvino_genai", "ctranslate2",
    "onnxruntime", "torch_npu",
)  # fmt: skip

_WITHOUT = """
import json, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import memserve
try:
    memserve.{opener}({model!r}, backend={backend!r}, **{options!r}).close()
    print(json.dumps(["opened", ""]))
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def _run(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def _found_elsewhere(target: Any) -> None:
    """Skip where the backend was registered in this process alone, by no entry point."""
    names = _run("import memserve, json; print(json.dumps(memserve.registry.names()))")
    if target.backend not in names:
        pytest.skip("capability backend: it has no entry point that another process would find")


def test_importing_memserve_loads_nothing_heavy(target: Any) -> None:
    loaded = _run("import memserve, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in HEAVY if name in loaded] == []


def test_finding_the_backend_loads_no_engine(target: Any) -> None:
    _found_elsewhere(target)
    code = f"import memserve, sys, json; memserve.registry.find({target.backend!r}).capabilities"
    loaded = _run(f"{code}; print(json.dumps(sorted(sys.modules)))")
    assert [name for name in ENGINES if name in loaded] == []


def test_a_missing_engine_names_the_command_that_installs_it(target: Any) -> None:
    _found_elsewhere(target)
    opener = "generator" if "generate" in target.tasks() else "embedder"
    code = _WITHOUT.format(
        absent=ENGINES, opener=opener, model=target.model, backend=target.backend,
        options=dict(target.options),
    )  # fmt: skip
    kind, words = _run(code)
    assert kind in ("BackendMissing", "opened"), words
    assert kind == "opened" or "pip install" in words
    assert "\n" not in words
