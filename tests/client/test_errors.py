"""Errors cross processes: a pool of workers sends them back pickled."""

from __future__ import annotations

import copy
import pickle

import pytest

from memserve import errors

MADE = [
    errors.MemserveError("plain", hint="do this"),
    errors.UnknownName("no such card", suggestions=["V100"]),
    errors.Unsupported("openai", "regex", "not here"),
    errors.DoesNotFit("too large"),
    errors.ModelUnreadable("torn", path="config.json", field="hidden_size"),
    errors.BackendMissing("vllm", needs="the package vllm", install="pip install memserve[vllm]"),
    errors.ContextOverflow(tokens=5000, limit=4096),
    errors.Throttled("slow down", status=429, retry_at=12.5),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("through", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_a_copy(error, through):
    again = through(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
