"""A budget is a wall, whatever a server counts, cuts off or answers too late."""

from __future__ import annotations

import random

import pytest
from simulated import Server, run

from memserve.protocol import Completion, Usage
from memserve.run.ask import sound

BUDGET = 20_000
TEXT = [{"prompt": f"p{number}", "max_tokens": 5} for number in range(4000)]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
WITH_IMAGES = [
    {
        "messages": [{"role": "user", "content": [{"type": "text", "text": f"what {n}"}, IMAGE]}],
        "max_tokens": 5,
    }
    for n in range(2000)
]
LONG = [
    {"messages": [{"role": "system", "content": "be kind " * 200}, {"role": "user", "content": f"{n}"}],
     "max_tokens": 5}
    for n in range(1000)
]  # fmt: skip
MIXED = [request for three in zip(TEXT, WITH_IMAGES, LONG, strict=False) for request in three]


def by_kind(body, post):
    """A text costs ten, an image a thousand, a long system prompt one token a character."""
    words = str(body["messages"])
    return (1000 if "image" in words else len(words) if "kind" in words else 10), 5


def uneven(body, post):
    return random.Random(post).randint(500, 1500), 5


SERVERS = {
    "as expected": (TEXT, {}, {}, 15),
    "a thousand for each short prompt": (TEXT, {"usage": lambda body, post: (1000, 5)}, {}, 1005),
    "uneven": (TEXT, {"usage": uneven}, {}, 1505),
    "images": (WITH_IMAGES, {"usage": lambda body, post: (1000, 5)}, {}, 1005),
    "texts, images and long prompts": (MIXED, {"usage": by_kind}, {}, 1700),
    "ignores max_tokens": (TEXT, {"usage": lambda body, post: (10, 500)}, {}, 510),
    "every second answer is cut off": (TEXT, {"broken": lambda post: post % 2 == 0}, {}, 15),
    "answers after the time limit": (TEXT, {"seconds": 30.0}, {"timeout": 10.0}, 15),
    "counts nothing": (TEXT, {"usage": lambda body, post: (10, 5)}, {}, 15),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("concurrency", [None, 256])
@pytest.mark.parametrize("name", SERVERS)
def test_a_budget_is_never_exceeded_by_more_than_one_request(name, concurrency):
    requests, how, limits, worst = SERVERS[name]
    server = Server(**how)
    server.tells = name != "counts nothing"
    _, asking = run(server, requests, budget=f"{BUDGET}tok", concurrency=concurrency, **limits)
    assert asking.error is not None
    assert server.billed <= BUDGET + worst


@pytest.mark.parametrize("count", [10**400, 10**18, 1e18, float("nan"), float("inf"), -1, True, "12", [1]])
def test_no_usage_number_ends_a_run(count):
    server = Server(usage=lambda body, post: (count, 5) if post == 3 else (10, 5))
    server.bill = lambda prompt, made: None
    results, asking = run(server, TEXT[:50], tpm=10**6, budget="5mtok")
    assert (results.done, results.failures, asking.error) == (50, [], None)


def test_a_generators_own_usage_is_checked_too():
    odd = Completion(text="x", usage=Usage(10**400, -1, True))
    assert sound(odd).usage == Usage()
    assert sound(Completion(text="x", usage=Usage(1, 2, 0, 1))).usage == Usage(1, 2, 0, 1)


def test_a_budget_is_used():
    server = Server()
    run(server, TEXT, budget=f"{BUDGET}tok", concurrency=64)
    assert server.billed > 0.99 * BUDGET
    assert server.most == 64


def test_a_server_that_ignores_max_tokens_is_named(caplog):
    run(Server(usage=lambda body, post: (10, 500)), TEXT[:20])
    assert [r.message for r in caplog.records].count(
        "the server does not keep to max_tokens: 5 asked, 500 came"
    ) == 1
