"""The four providers' wires, each with one good answer, against a server that misbehaves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fake_anthropic
import fake_bedrock
import fake_gemini
import pytest
from faulty_fixtures import quick, server, slept

import memserve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["quick", "server", "slept"]
SECRET = "very-secret-value-77"


@dataclass(frozen=True)
class Wire:
    """How one provider answers "ok"."""

    backend: str
    model: str
    good: dict[str, Any]
    pieces: tuple[bytes, ...]
    """A stream of two pieces, "o" and "k", and its end."""
    kind: str = "text/event-stream"
    options: dict[str, Any] = field(default_factory=lambda: {"api_key": SECRET})

    @property
    def head(self) -> bytes:
        return f"HTTP/1.1 200 OK\r\ncontent-type: {self.kind}\r\nconnection: close\r\n\r\n".encode()


def _pangu(text: str | None, finish: str | None = None) -> bytes:
    message = {} if text is None else {"content": text}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    return f"data:{json.dumps({'choices': [choice]})}\n\n".encode()


def _claude(text: str) -> bytes:
    delta = {"type": "text_delta", "text": text}
    return fake_anthropic.event("content_block_delta", index=0, delta=delta)


def _gemini(text: str, **more: str) -> bytes:
    content = {"role": "model", "parts": [{"text": text}]}
    return fake_gemini.event({"candidates": [{"content": content, "index": 0, **more}]})


def _bedrock(text: str) -> bytes:
    return fake_bedrock.frame("contentBlockDelta", {"delta": {"text": text}, "contentBlockIndex": 0})


WIRES = [
    Wire(
        "pangu", "m",
        {"choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]},
        (_pangu("o"), _pangu("k"), _pangu(None, "stop")),
        options={"api_key": SECRET, "project_id": "P", "deployment_id": "D"},
    ),
    Wire(
        "anthropic", "claude-haiku-4-5",
        {"type": "message", "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"},
        (_claude("o"), _claude("k"),
         fake_anthropic.event("message_delta", delta={"stop_reason": "end_turn"})
         + fake_anthropic.event("message_stop")),
    ),
    Wire(
        "gemini", "gemini-2.5-flash",
        {"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}]},
        (_gemini("o"), _gemini("k"), _gemini("", finishReason="STOP")),
    ),
    Wire(
        "bedrock", "amazon.nova-lite-v1:0",
        {"output": {"message": {"content": [{"text": "ok"}]}}, "stopReason": "end_turn"},
        (_bedrock("o"), _bedrock("k"), fake_bedrock.frame("messageStop", {"stopReason": "end_turn"})),
        kind="application/vnd.amazon.eventstream",
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of the machine that runs the tests."""
    ours = ("AWS_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "PANGU_", "HUAWEICLOUD_")
    for name in [name for name in os.environ if name.startswith(ours)]:
        monkeypatch.delenv(name)


@pytest.fixture(params=WIRES, ids=lambda wire: wire.backend)
def wire(request: pytest.FixtureRequest) -> Wire:
    return request.param


@pytest.fixture
def opened(wire: Wire, server: Any, quick: None) -> Iterator[Callable[..., Any]]:
    """Open this provider at the misbehaving server."""
    held = []

    def make(**options: Any) -> Any:
        settings = {"base_url": server.base_url, "timeout": 30, "max_retries": 2, **wire.options, **options}
        held.append(memserve.generator(wire.model, backend=wire.backend, **settings))
        return held[-1]

    yield make
    for generator in held:
        generator.close()
