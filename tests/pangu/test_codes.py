"""Failures are known by their code, whatever their status and shape."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from faulty_server import reply

from memserve import errors

OK = reply()
ROWS = json.loads(files("memserve_pangu").joinpath("errors.json").read_text())["codes"]
SHAPES = [
    lambda code: {"error_code": code, "error_msg": "said", "request_id": "r"},
    lambda code: {"errorCode": code, "errorMsg": "said"},
    lambda code: {"code": code, "message": "said"},
    lambda code: {"error": {"code": code, "message": "said"}},
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["code"])
@pytest.mark.parametrize("status", [200, 400, 401, 403, 429, 500])
def test_the_code_decides(row, status, server, opened):
    server.will(reply(status, SHAPES[status % len(SHAPES)](row["code"]), retry_after="0"))
    generator = opened(server.base_url, api_key="k" * 9, max_retries=0)
    with pytest.raises(getattr(errors, row["error"]), match="said") as caught:
        generator.generate("hi")
    assert caught.value.code == row["code"]
    assert caught.value.status == status


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("status", [400, 403, 429, 500])
def test_too_many_calls_are_waited_out(shape, status, server, opened):
    server.will(reply(status, SHAPES[shape]("PANGU.3267"), retry_after="0"), OK)
    assert opened(server.base_url, api_key="k" * 9).generate("hi").text == "ok"
    assert len(server.posts) == 2


def test_the_gateways_throttle_waits_as_the_vendor_says(server, opened, slept):
    text = "The throttling threshold has been reached: policy user over ratelimit,limit:10,time:1 second"
    server.will(reply(429, {"error_code": "APIG.0308", "error_msg": text}), OK)
    assert opened(server.base_url, api_key="k" * 9).generate("hi").text == "ok"
    assert 2.0 <= sum(slept) <= 2.2


@pytest.mark.parametrize("code", ["PANGU.0010", "PANGU.3254", "PANGU.3278", "PANGU.3318", "APIG.0101"])
def test_what_is_wrong_stays_wrong(code, server, opened):
    server.will(reply(400, SHAPES[0](code)))
    with pytest.raises(errors.RemoteError) as caught:
        opened(server.base_url, api_key="k" * 9).generate("hi")
    assert not caught.value.retryable
    assert len(server.posts) == 1


def test_details_are_read(server, opened):
    body = {
        **SHAPES[0]("PANGU.3342"),
        "details": "maximum context length is 4096 tokens, requested 5000 tokens",
    }
    server.will(reply(400, body))
    with pytest.raises(errors.ContextOverflow) as caught:
        opened(server.base_url, api_key="k" * 9).generate("hi")
    assert (caught.value.limit, caught.value.tokens) == (4096, 5000)
