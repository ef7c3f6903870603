"""ModelArts' real-time services: OpenAI's format below /v1/infers/{id}, inputs and parameters at it."""

from __future__ import annotations

import pytest
from fake_pangu import ACCESS, INFERS
from faulty_server import SSE_HEAD, raw, reply
from run_conformance import conformance

import memserve
from memserve import Raw, errors

WAYS = {
    "api_key": ("authorization", "Bearer "),
    "app_code": ("x-apig-appcode", ""),
    "token": ("x-auth-token", ""),
    "ak": ("authorization", f"SDK-HMAC-SHA256 Access={ACCESS}, SignedHeaders=content-type;host;x-sdk-date"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("below", ["", "/v1", "/v1/chat/completions"])
def test_a_service_takes_each_kind_of_credentials(way, below, pangu):
    pangu.valid.add("a-token")
    given = {"ak": ACCESS, "sk": "very-secret-key"} if way == "ak" else {way: pangu.key}
    given = {"token": "a-token"} if way == "token" else given
    with memserve.generator("m", backend="pangu", base_url=pangu.origin + INFERS + below, **given) as model:
        told = model.generate(Raw("hi") if not below else "hi", max_tokens=5)
        assert (len(told.text.split()), told.finish_reason, told.usage.completion_tokens) == (5, "length", 5)
        assert "".join(one.text for one in model.stream(Raw("hi") if not below else "hi", max_tokens=5))
    header, begins = WAYS[way]
    for seen in pangu.seen:
        assert seen.path == INFERS + ("/v1/chat/completions" if below else "")
        assert seen.headers[header].startswith(begins)
        assert "very-secret" not in str(seen.headers)


def test_what_is_asked_stands_in_the_parameters(pangu):
    url = pangu.origin + INFERS
    with memserve.generator(backend="pangu", base_url=url, api_key=pangu.key) as model:
        cold = model.generate(Raw("hi"), max_tokens=5)
        model.generate(Raw("hi"), max_tokens=5, temperature=0.5, top_p=0.9, top_k=3, seed=7)
        pieces = list(model.stream(Raw("hi"), max_tokens=5))
        for bad in ("hi", [{"role": "user", "content": "hi"}]):
            with pytest.raises(errors.Unsupported, match="chat prompts"):
                model.generate(bad)
        with pytest.raises(errors.Unsupported, match="stop"):
            model.generate(Raw("hi"), stop=["x"])
    assert [seen.json["parameters"] for seen in pangu.seen[:2]] == [
        {"max_new_tokens": 5, "do_sample": False, "details": True},
        {"max_new_tokens": 5, "do_sample": True, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7,
         "details": True},
    ]  # fmt: skip
    assert "".join(one.text for one in pieces) == cold.text
    assert (pieces[-1].finish_reason, pieces[-1].usage) == ("length", cold.usage)


@pytest.mark.parametrize(
    "body",
    [{}, [], [{"generated_text": "a"}, {"generated_text": "b"}], {"generated_text": None},
     {"generated_text": [1]}, {"outputs": "a"}],
)  # fmt: skip
def test_an_answer_that_is_none_is_asked_for_again(body, server, quick):
    server.will(reply(200, body), reply(200, [{"generated_text": "ok"}]))
    url = server.base_url.removesuffix("/v1") + INFERS
    with memserve.generator(backend="pangu", base_url=url, api_key="k", max_retries=1) as model:
        told = model.generate(Raw("hi"))
    assert (told.text, told.finish_reason, told.usage.completion_tokens) == ("ok", None, None)


@pytest.mark.parametrize(
    "events",
    [[b'{"token": {"text": "a"}}'], [b'{"text": "a"}'], [b"[1]"], [b'{"token": "a"}'], []],
)  # fmt: skip
def test_a_stream_that_breaks_is_no_answer(events, server, quick):
    server.will(raw(SSE_HEAD + b"".join(b"data: " + one + b"\n\n" for one in events)))
    url = server.base_url.removesuffix("/v1") + INFERS
    with (
        memserve.generator(backend="pangu", base_url=url, api_key="k", max_retries=0) as model,
        pytest.raises(errors.RemoteError),
    ):
        list(model.stream(Raw("hi")))


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "/v1"])
def test_the_conformance_suite_passes(below, pangu, tmp_path):
    counts = conformance(tmp_path, "pangu", "m", base_url=pangu.origin + INFERS + below, api_key=pangu.key)
    assert counts["passed"] > 40
