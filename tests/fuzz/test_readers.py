# ruff: noqa: E501
"""What strangers write ends in an answer or in one of memserve's errors: mutants of each reader's seeds.

`python tests/fuzz/run.py` goes much further; what it has found once stands here as a case.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator

import pytest
from extras import need

need("jinja2", "conformance")
need("PIL", "hf")

from readers import READERS, Reader  # noqa: E402

from memserve.errors import MemserveError  # noqa: E402
from mutants import mutant  # noqa: E402

MUTANTS = 40


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path))
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)  # which also lets loggers forget that they were silent


def stumble(reader: Reader, data: bytes) -> str:
    """What a reader raises that is none of our errors."""
    try:
        reader.read(data)
    except MemserveError as error:
        return "" if str(error).isprintable() else f"unprintable: {error!r}"
    except Exception as broken:
        return f"{type(broken).__name__}: {broken} from {data[:300]!r}"
    return ""


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", READERS)
def test_a_mutant_is_read_or_refused(name):
    reader, draw = READERS[name], random.Random(name)
    seeds = list(reader.seeds())
    assert not [found for seed in seeds if (found := stumble(reader, seed))]
    data = (mutant(draw.choice(seeds), draw) for _ in range(MUTANTS))
    twice = (mutant(one, draw) if draw.random() < 0.5 else one for one in data)
    assert not [found for one in twice if (found := stumble(reader, one))]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_refuses_something(name):
    """A seed that is cut, or followed by noise: no reader takes all that there is."""
    reader = READERS[name]

    def told(data: bytes) -> object:
        try:
            return reader.read(data)
        except MemserveError as error:
            return str(error)

    assert any(told(data) != told(seed) for seed in reader.seeds()
               for data in (seed[: len(seed) // 2], b"\xff{" + seed))  # fmt: skip


CHAT = {"messages": [{"role": "user", "content": "x"}]}
SAFETENSORS = b'{"a": {"dtype": "F16", "shape": %b, "data_offsets": %b}}'
KIMI = {"model_type": "kimi_linear", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "vocab_size": 100, "intermediate_size": 64, "linear_attn_config": {"full_attn_layers": "a", "kda_layers": []}}  # fmt: skip
FOUND = [
    ("config", json.dumps(KIMI)),
    ("body", json.dumps({**CHAT, "temperature": 10**400})), ("body", json.dumps({"prompt": [["a"]]})),
    ("body", json.dumps({**CHAT, "tools": [{"type": "function", "function": "f"}], "tool_choice": {"function": {}}})),
    ("body", json.dumps({**CHAT, "tools": [{}], "tool_choice": {"function": "f"}})),
    ("body", json.dumps({"input": "x", "tools": 2})),
    ("body", json.dumps({"messages": [{"role": "user", "content": [{"type": []}]}]})),
    ("learnt", '{"speeds": ' + "[" * 3000), ("learnt", "[" * 3000), ("log", '{"results": [{"ttft_ms": 1.5}]}'),
    ("failures", '{, "check": "15d54739"}\n'), ("gemini", '429\n\n{"error": {"details": 1}}'),
    ("journal", '{"id": "a", "at": 1e999}\n'), ("journal", '{"id": "a", "usage": 3, "at": []}\n'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said"), FOUND)
def test_what_was_found_once_stays_mended(name, said):
    assert stumble(READERS[name], said.encode()) == ""


@pytest.mark.parametrize(("shape", "offsets"), [(b"[1e999]", b"[0, 0]"), (b"[1]", b"[[], 0]")])
def test_a_header_holds_numbers(shape, offsets):
    head = SAFETENSORS % (shape, offsets)
    assert stumble(READERS["safetensors"], len(head).to_bytes(8, "little") + head) == ""
