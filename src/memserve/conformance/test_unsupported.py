"""What a backend cannot honour is refused before any work; nothing is silently dropped."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, awaited, heat, limited, need, question, streamed, worded
from memserve.errors import InvalidInput, Unsupported

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
