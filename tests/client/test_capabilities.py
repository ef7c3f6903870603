"""What a backend does not name, it does not have."""

from __future__ import annotations

from dataclasses import MISSING, fields

import pytest

import memserve
from memserve import registry
from memserve.errors import Unsupported
from memserve.protocol import Capabilities, Completion

GENERATING = ("chat", "temperature", "top_p", "max_tokens")
"""What every one of our own generators honours for at least one model."""


def test_every_default_is_no():
    claimed = {f.name: f.default for f in fields(Capabilities) if f.default is not MISSING and f.default}
    assert claimed == {"tasks": frozenset({"generate"})}


class Silent:
    capabilities = Capabilities(backend="silent", chat=True)

    def generate(self, requests):
        return [Completion(text=repr(request.temperature)) for request in requests]

    def open(self, model=None, *, task="generate", **options):
        return self


@pytest.mark.parametrize("setting", ["temperature", "top_p", "max_tokens", "stop"])
def test_a_setting_that_nobody_claims_is_refused_and_not_dropped(monkeypatch, setting):
    monkeypatch.setattr(registry, "find", lambda name: Silent())
    with memserve.generator("m", backend="silent") as generator:
        assert generator.generate("a").text == "None"
        with pytest.raises(Unsupported, match=setting):
            generator.generate("a", **{setting: ["x"] if setting == "stop" else 1})


@pytest.mark.parametrize("name", [name for name in registry.names() if name != "toy"])
def test_our_backends_say_what_they_have(name):
    known = registry.find(name).capabilities
    missing = {setting for setting in GENERATING if not getattr(known, setting)}
    assert missing <= ({"top_p"} if name in ("anthropic", "bedrock") else set()), "Claude takes no top_p"
    assert known.usage
