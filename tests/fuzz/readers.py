# ruff: noqa: E501, PERF203
"""Every reader of what strangers write, as a function of bytes: an answer or one of memserve's errors, in time.

`python tests/fuzz/run.py` drives them by coverage; `test_readers.py` with some mutants a reader.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import runpy
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import servers

from memserve import pictures
from memserve.client.handle import for_engine
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.memory import calibration
from memserve.model import load
from memserve.model.stored import headers
from memserve.plan import checking
from memserve.plan.library import machine_of
from memserve.plan.tasks import calibrating, learning
from memserve.protocol import Capabilities, Completion, Request
from memserve.run import requests, summary, tasks
from memserve.run.store import journal, results
from memserve.run.store.cache import Cache
from memserve.serve import planned
from memserve.serve.endpoint import answered, app, asked
from memserve.speed import learnt, workloads
from memserve.tokens import calling, thinking
from memserve.tokens.prompts import Prompts
from memserve.tokens.template import compiled

DATA = Path(__file__).parents[1] / "data"
FOLDER = Path(mkdtemp(prefix="memserve-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
CPU_SECONDS = 5.0
"""A reader that takes longer hangs."""


@dataclass(frozen=True)
class Reader:
    """One reader, and what it reads without complaint."""

    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]


def placed(data: bytes, name: str) -> Path:
    """The bytes as a file."""
    path = FOLDER / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _json(*values: object) -> Callable[[], Iterable[bytes]]:
    return lambda: [json.dumps(value).encode() for value in values]


# ------------------------------------------------------------ the planner's

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
    "max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn", "factor": 2.0},
    "quantization_config": {"quant_method": "compressed-tensors", "ignore": ["re:.*lm_head", "re:(a|b)*!"],
                            "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}}},
}  # fmt: skip


def _configs() -> Iterator[bytes]:
    yield json.dumps(LLAMA).encode()
    rows = (DATA.parents[1] / "src/memserve/model/data/catalogue.jsonl").read_text().splitlines()
    kinds = {}
    for row in map(json.loads, rows):
        if "config" in row:
            kinds.setdefault(row["config"].get("model_type"), row["config"])
    yield from (json.dumps(config).encode() for config in kinds.values())


def read_config(data: bytes) -> object:
    path = placed(data, "config.json")
    model = load(str(path))
    found = checking.check(f"vllm serve {path}", "2xL4")
    return model.parameters, str(found), json.dumps(found.to_dict())


def read_plan(data: bytes) -> object:
    return planned.read(str(placed(data, "plan.json")))


def _plans() -> Iterator[bytes]:
    from memserve.plan import best

    for backend in ("vllm", "sglang", "hf"):
        yield json.dumps({"plan": best("llama-3.1-8b", "1xL40S", backend=backend).to_dict()}).encode()


def _safetensors() -> Iterator[bytes]:
    table = {"a.weight": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]},
             "b.qweight": {"dtype": "I32", "shape": [1], "data_offsets": [8, 12]}}  # fmt: skip
    head = json.dumps({"__metadata__": {"format": "pt"}, **table}).encode()
    yield struct.pack("<Q", len(head)) + head + bytes(12)


def read_safetensors(data: bytes) -> object:
    found = headers.header(placed(data, "model.safetensors"))
    return headers.by_dtype(found), headers.unpacked(found, None, 2)


def _gguf() -> Iterator[bytes]:
    def text(word: str) -> bytes:
        return struct.pack("<Q", len(word)) + word.encode()

    pairs = {"general.architecture": "llama", "llama.embedding_length": 64, "llama.block_count": 1,
             "llama.attention.head_count": 4, "llama.context_length": 128, "llama.vocab_size": 100,
             "llama.feed_forward_length": 128}  # fmt: skip
    rows = b"".join(
        text(name)
        + (struct.pack("<I", 8) + text(said) if isinstance(said, str) else struct.pack("<II", 4, said))
        for name, said in pairs.items()
    )
    tensor = text("token_embd.weight") + struct.pack("<IQQIQ", 2, 64, 100, 0, 0)
    yield b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs)) + rows + tensor


def read_gguf(data: bytes) -> object:
    return load(str(placed(data, "model.gguf"))).parameters


def read_log(data: bytes) -> object:
    """A start-up log, or a report of `memserve bench`, as `--calibrate` takes either."""
    path = placed(data, "log.txt")
    options = SimpleNamespace(calibrate=str(path), gpus="1xL4", model=None, json=False)
    report = learning.read(str(path))
    if report is None:
        return calibrating.kept(calibration.read_log(path), options)  # type: ignore[arg-type]
    return calibrating.of_report(report, options)  # type: ignore[arg-type]


def _logs() -> Iterator[bytes]:
    for path in sorted((DATA / "startup").glob("*.txt")):
        yield path.read_bytes()[:6000]
    row = {"input_tokens": 100, "output_tokens": 10, "concurrency": 1, "ttft_ms": {"mean": 9.0},
           "tpot_ms": {"mean": 9.0}, "output_tokens_per_s": 100.0}  # fmt: skip
    target = {"backend": "vllm", "gpus": "1xL4", "model": "llama-3.1-8b", "engine_version": "0.19.1"}
    yield json.dumps({"schema": 1, "target": target, "results": [row],
                      "memory": {"startup_log": {"backend": "vllm", "total": 2**34}}}).encode()  # fmt: skip


def read_learnt(data: bytes) -> object:
    """What an earlier --calibrate left, perhaps of another release."""
    path = placed(data, "learnt.json")
    return learnt.load(path) if b'"speeds"' in data else calibration.load(path)


def read_command(data: bytes) -> object:
    return checking.check(data.decode("utf-8", "replace"), "2xL4").to_dict()


def _commands() -> Iterable[bytes]:
    return [
        b"vllm serve llama-3.1-8b --tensor-parallel-size 2 --max-model-len 8k --gpu-memory-utilization 0.9",
        b"CUDA_VISIBLE_DEVICES=0,1 python -m sglang.launch_server --model-path llama-3.1-8b --tp 2",
        b"docker run --gpus all -e A=b vllm/vllm-openai:v0.19.1 --model llama-3.1-8b --kv-cache-dtype fp8",
        b"lmdeploy serve api_server llama-3.1-8b --tp 2 --cache-max-entry-count 0.5",
        b"llama-server -hf a/b -c 4096 -ngl 99 --cache-type-k q8_0", b"transformers serve llama-3.1-8b",
    ]  # fmt: skip


def read_spec(data: bytes) -> object:
    """What stands behind --gpus and --workload."""
    words = data.decode("utf-8", "replace")
    try:
        return machine_of(words)
    except MemserveError:
        return workloads.find(words)


# ------------------------------------------------------------ the runner's


def _lines() -> Iterator[bytes]:
    from memserve.run.store import record

    for index, text in enumerate(("Paris.", "é\u2028", "")):
        item = requests.read_item({"id": f"q{index}", "prompt": "p", "meta": {"a": 1}}, index, {})
        yield record.line(item, record.body(Completion(text, "stop")), 0.1, 0.001)


def read_journal(data: bytes) -> object:
    path = placed(data, "run/answers.jsonl")
    with closing(journal.Journal(path)) as opened:
        found = list(opened.recover())
        assert opened.finish() is None
    return found, journal.verify(path), list(summary.answers(path)), list(summary.lines(path))


def read_failures(data: bytes) -> object:
    path = placed(data, "run/a.failed.jsonl")
    opened = results.Failures(path)
    opened.keep(lambda stamp: True)
    return list(opened.stamps())


def _failures() -> Iterator[bytes]:
    path = FOLDER / "run" / "seed.failed.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    opened = results.Failures(path)
    opened.add(requests.read_item({"id": "q", "prompt": "p"}, 0, {}), InvalidInput("wrong"))
    opened.malformed(1, 2, InvalidInput("no"), 7)
    opened.close()
    yield path.read_bytes()


def read_cache(data: bytes) -> object:
    for path in (FOLDER / "run").glob("cache.sqlite*"):
        path.unlink()
    with closing(Cache(placed(data, "run/cache.sqlite"), {"model": "m"})) as cache:
        return [cache.get(item) for item in _items()]


@cache
def _items() -> list[Any]:
    return [requests.read_item({"prompt": f"p{n}"}, n, {}) for n in range(3)]


def _caches() -> Iterator[bytes]:
    path = FOLDER / "run" / "seed.sqlite"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    with closing(Cache(path, {"model": "m"})) as cache:
        for item in _items():
            cache.put(item, Completion("x", "stop"), b'{"text": "x", "finish_reason": "stop"}')
    yield path.read_bytes()


def read_requests(data: bytes) -> object:
    found = []
    for index, _, value in requests.entries(str(placed(data, "requests.jsonl"))):
        for task in ("generate", "embed", "rerank", "score"):
            try:
                if isinstance(value, InvalidInput):
                    raise value
                line = summary.request(value, "m") if summary.is_line(value) else value
                item = requests.read_item(tasks.entry(line, task), index, {})  # type: ignore[arg-type]
                found.append((item, item.characters, requests.arrange([item, item, item])))
            except InvalidInput as wrong:
                found.append((requests.name_in(value), results.reason(wrong)))
    return found


def _requests() -> Iterator[bytes]:
    image = {"type": "image_url", "image_url": {"url": PNG.decode()}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    yield b"\n".join(json.dumps(row).encode() for row in (
        {"id": "a", "prompt": "p", "max_tokens": 5, "temperature": 0.5, "stop": ["x"], "meta": {"g": 1}},
        {"id": 2, "messages": [{"role": "user", "content": [{"type": "text", "text": "t"}, image]}],
         "tools": [tool], "schema": {"type": "object"}},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "m", "messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 3}},
        {"id": "e", "text": "t", "dimensions": 3}, {"id": "r", "query": "q", "documents": ["a", "b"]},
        {"id": "s", "context": "c", "continuation": "d"}, "bare", [1, 2, 3], {"prompt": {"raw": "r"}},
    ))  # fmt: skip


# ------------------------------------------------------------ what models say, and what is shown to them

TOOL: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}


def read_calls(data: bytes) -> object:
    """The first byte names the family; cut into pieces the text must read the same."""
    known = calling.families()
    how = calling.Calling(known[data[0] % len(known)] if data else known[0], {"get_weather": TOOL})
    text = data[1:].decode("utf-8", "replace")
    whole, splitter = calling.read(text, how), calling.CallSplitter(how)
    said = "".join(splitter.push(text[at : at + 7]) for at in range(0, len(text), 7))
    said += splitter.push("", last=True)
    assert splitter.calls == whole[1], (splitter.calls, whole)
    for call in whole[1]:
        assert isinstance(json.loads(call.arguments), dict)
    return whole


def _calls() -> Iterator[bytes]:
    places = {family.name: place for place, family in enumerate(calling.families())}
    tested = runpy.run_path(str(DATA.parent / "support" / "transcripts.py"))["TRANSCRIPTS"]
    yield from (bytes([places[name]]) + text.encode() for name, text, *_ in tested)


def read_thoughts(data: bytes) -> object:
    known = thinking.families()
    family = known[data[0] % len(known)] if data else known[0]
    text = data[1:].decode("utf-8", "replace")
    whole = thinking.ThoughtSplitter(family, inside=False).push(text, last=True)
    pieces = thinking.ThoughtSplitter(family, inside=False)
    parts = [pieces.push(sign) for sign in text] + [pieces.push("", last=True)]
    assert whole == ("".join(part[0] for part in parts), "".join(part[1] for part in parts))
    return whole


def _thoughts() -> Iterator[bytes]:
    for place, family in enumerate(thinking.families()):
        before, after = family.brackets[0] if family.brackets else ("", "")
        text = f"{family.open}hm{''.join(family.joints)}{family.closes[0]}\n\n{before}hi{after}"
        yield bytes([place]) + text.encode()


class _Tokenizer:
    """Bytes as tokens, and a template of somebody else."""

    bos_token_id = eos_token_id = None

    def __init__(self, template: str) -> None:
        self.chat_template = template

    def encode(self, text: str, **_: object) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return bytes(ids).decode("utf-8", "replace")

    def apply_chat_template(self, messages: Any, *, tokenize: bool, **variables: Any) -> str:
        return str(compiled(self.chat_template).render(messages=messages, **variables))


def read_template(data: bytes) -> object:
    tokenizer = _Tokenizer(data.decode("utf-8", "replace"))
    prompts = Prompts(tokenizer, vocabulary=256, context=4096, path="x", backend="fuzz")  # type: ignore[arg-type]
    prompts.prove()
    tool = {"type": "function", "function": {"name": "f", "parameters": TOOL}}
    for request in (
        Request(prompt="hello"),
        Request(prompt="hello", tools=[tool]),
        Request(prompt="hello", thinking=False),
    ):
        try:
            prompts.prepare(request)
        except Unsupported:
            continue
    return prompts.thinking_modes


def _templates() -> Iterable[bytes]:
    return [
        b"{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
        b"{% if add_generation_prompt %}<|assistant|><think>{% if not enable_thinking %}</think>{% endif %}{% endif %}",
        b"{%- if tools %}<tool_call>{{ tools | tojson(indent=2) }}{% endif %}{%- macro f(x) %}{{ x }}{% endmacro %}"
        b"{{ f(messages[-1].content) }}{{ raise_exception('x') if messages | length > 9 }}{{ strftime_now('%Y') }}",
        b"{% set ns = namespace(a=0) %}{% for i in range(10) %}{% set ns.a = ns.a + i ** 2 %}{% break %}{% endfor %}"
        b"{{ 'a' * 3 }}{{ messages[0]['content'] | replace('a', 'b') | upper }}{{ '%s' | format(ns.a) }}",
    ]


PNG = (b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
       b"AABJRU5ErkJggg==")  # fmt: skip


def read_picture(data: bytes) -> object:
    part = pictures.settled({"type": "image_url", "image_url": {"url": data.decode("utf-8", "replace")}},
                            "data", remote=False)  # fmt: skip
    return pictures.load(part["image_url"]["url"]).size


# ------------------------------------------------------------ what callers of the endpoint post


class _Echo:
    """Answers everything at once."""

    capabilities = Capabilities(
        backend="echo", model="m", context=4096, chat=True, raw=True, token_ids=True, images=True, tools=True,
        temperature=True, top_p=True, max_tokens=True, top_k=True, min_p=True, seed=True, stop=True, n=True,
        logprobs=20, schema=True, regex=True, choices=True, thinking=frozenset({"on", "off", "budget"}),
        template=True, usage=True,
    )  # fmt: skip
    any_loop = True

    async def complete(self, request: Request) -> Completion:
        one = Completion("{}", "stop")
        return Completion("{}", "stop", samples=(one,) * request.n if request.n > 1 else ())  # type: ignore[arg-type]


@cache
def _generator() -> Any:
    from memserve.client.generation import Generator

    echo = _Echo()
    return Generator(echo, for_engine(echo, 8))


ROUTES = ((asked.chat, answered.Chat), (asked.text, answered.Text), (asked.responses, answered.Responses))


def read_body(data: bytes) -> object:
    async def ask() -> list[object]:
        found = []
        for route, shape in ROUTES:
            try:
                body = asked.body_of(data)
                wanted = route(body, _Echo.capabilities)
                if len(wanted.prompts) <= 64 and wanted.settings.get("n", 1) in range(65):
                    found.append(shape("m", wanted).whole(await app._answers(_generator(), wanted)))
            except MemserveError as error:
                found.append(json.dumps(answered.failure(error)))
        return found

    return asyncio.run(ask())


def _bodies() -> Iterator[bytes]:
    image = {"type": "image_url", "image_url": {"url": PNG.decode()}}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    yield from _json(
        {"model": "m", "messages": [{"role": "system", "content": "s"},
                                    {"role": "user", "content": [{"type": "text", "text": "t"}, image]}],
         "max_completion_tokens": 3, "stop": ["a"], "logprobs": True, "top_logprobs": 2, "n": 2,
         "response_format": schema, "chat_template_kwargs": {"a": 1}, "stream_options": {"include_usage": True}},
        {"model": "m", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None,
         "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "y"}], "tools": [tool],
         "tool_choice": {"type": "function", "function": {"name": "f"}}, "reasoning_effort": "low"},
        {"prompt": ["a", "b"], "temperature": 0.5, "top_p": 0.5, "seed": 1, "logprobs": 1},
        {"prompt": [[1, 2], [3]], "max_tokens": 4, "guided_regex": "a+"},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "t"}]},
                   {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                   {"type": "function_call_output", "call_id": "c", "output": "z"}],
         "instructions": "i", "max_output_tokens": 4, "text": {"format": schema}, "reasoning": {"effort": "low"},
         "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]},
    )()  # fmt: skip


READERS: dict[str, Reader] = {
    "config": Reader(read_config, _configs), "plan": Reader(read_plan, _plans),
    "safetensors": Reader(read_safetensors, _safetensors), "gguf": Reader(read_gguf, _gguf),
    "log": Reader(read_log, _logs), "learnt": Reader(read_learnt, _json(
        {"schema": 1, "profiles": [{"backend": "vllm", "card": "L4", "tensor": 1, "total": 2**34}]},
        {"schema": 1, "speeds": [{"backend": "vllm", "card": "L4", "factors": {"steps": 1.5}, "rows": []}]})),
    "command": Reader(read_command, _commands),
    "spec": Reader(read_spec, lambda: [b"4xV100-32GB", b"2x8xH100@3.5", b"1xRTX4090@0", b"cpu", b"100:20:30"]),
    "journal": Reader(read_journal, lambda: [b"".join(_lines()), *_lines()]),
    "failures": Reader(read_failures, _failures), "cache": Reader(read_cache, _caches),
    "requests": Reader(read_requests, _requests),
    "openai": Reader(servers.provider("openai"), servers.openai), "anthropic": Reader(servers.provider("anthropic"), servers.anthropic),
    "gemini": Reader(servers.provider("gemini"), servers.gemini), "bedrock": Reader(servers.provider("bedrock"), servers.bedrock),
    "responses": Reader(servers.provider("responses"), servers.responses),
    "pangu": Reader(servers.provider("pangu"), servers.pangu),
    "calls": Reader(read_calls, _calls), "thoughts": Reader(read_thoughts, _thoughts),
    "template": Reader(read_template, _templates), "picture": Reader(read_picture, lambda: [PNG]),
    "body": Reader(read_body, _bodies),
}  # fmt: skip
