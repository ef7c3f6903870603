"""Huawei's own code proves ours honest: its signer signs alike, its SDK reads our fake Pangu."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from extras import need
from fake_pangu import DEPLOYMENT, PROJECT

from memserve.http import Secret
from memserve_pangu.credential import authorization, canonical

VECTOR = json.loads((Path(__file__).parents[1] / "data" / "pangu" / "sign_vector.json").read_text())
URL = "https://pangu.cn-southwest-2.myhuaweicloud.com" + VECTOR["uri"]


def test_the_vector_of_huaweis_sdk():
    headers = {name: value for name, value in VECTOR["headers"].items() if name != "Authorization"}
    body = b'{"messages":[{"content":"hi"}]}'
    assert canonical("POST", URL, headers, body) == VECTOR["canonical"]
    made = authorization("POST", URL, headers, body, "AKEXAMPLE", Secret("SKEXAMPLE"))
    assert made == VECTOR["headers"]["Authorization"]


@pytest.mark.parametrize("path", ["/v1/PID/deployments/DID/chat/completions", "/v1/a b/中文~/x%2Fy/", "/"])
@pytest.mark.parametrize("query", ["", "?b=2&a=1 2&a=0", "?empty=&x=%E4%BD%A0"])
@pytest.mark.parametrize("body", [b"", b"{}", '{"messages":[{"content":"你好"}]}'.encode()])
def test_huaweis_signer_signs_alike(path, query, body):
    signer = need("huaweicloudsdkcore.signer.signer", "oracles")
    from urllib.parse import parse_qsl, quote

    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.sdk_request import SdkRequest

    host = "pangu.cn-southwest-2.myhuaweicloud.com"
    headers = {"Content-Type": "application/json", "Host": host, "X-Sdk-Date": "20260101T000000Z",
               "X-Project-Id": "PID", "X-Security-Token": "sts"}  # fmt: skip
    wire = quote(path, safe="/%~")
    url = f"https://{host}{wire}{quote(query, safe='?&=%')}"
    request = SdkRequest(
        method="POST", schema="https", host=host, resource_path=wire, header_params=dict(headers),
        query_params=parse_qsl(query[1:], keep_blank_values=True), body=body,
    )  # fmt: skip
    theirs = signer.Signer(BasicCredentials("AKEXAMPLE", "SKEXAMPLE", "PID")).sign(request)
    ours = authorization("POST", url, headers, body, "AKEXAMPLE", Secret("SKEXAMPLE"))
    assert ours == theirs.header_params["Authorization"]


@pytest.fixture
def sdk(pangu):
    need("huaweicloudsdkpangulargemodels", "oracles")
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkpangulargemodels.v1 import PanguLargeModelsClient

    pangu._may = lambda seen: "Access=AKEXAMPLE" in seen.headers.get("authorization", "")
    credentials = BasicCredentials("AKEXAMPLE", "SKEXAMPLE", PROJECT)
    return (
        PanguLargeModelsClient.new_builder().with_credentials(credentials).with_endpoint(pangu.origin).build()
    )


def test_huaweis_sdk_sends_and_reads_what_we_do(sdk, pangu, opened):
    from huaweicloudsdkpangulargemodels.v1 import (
        ChatCompletionReq,
        ExecuteChatCompletionRequest,
        Message,
    )

    body = ChatCompletionReq(
        messages=[Message(role="user", content="hi")], temperature=0.0, top_p=0.9, max_tokens=5
    )
    theirs = sdk.execute_chat_completion(ExecuteChatCompletionRequest(deployment_id=DEPLOYMENT, body=body))
    ours = opened(pangu.origin, ak="AKEXAMPLE", sk="SKEXAMPLE").generate(
        "hi", temperature=0.0, top_p=0.9, max_tokens=5
    )
    assert theirs.choices[0].message.content == ours.text
    assert theirs.usage.completion_tokens == ours.usage.completion_tokens
    first, second = pangu.seen
    assert first.path == second.path
    assert first.json == second.json
    assert _signed(first) == _signed(second)


def _signed(seen):
    return seen.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")[-2:]


def test_huaweis_sdk_completes_text_alike(sdk, pangu, opened):
    from huaweicloudsdkpangulargemodels.v1 import ExecuteTextCompletionRequest, TextCompletionReq

    from memserve import Raw

    body = TextCompletionReq(prompt="once upon", temperature=0.0, top_p=1.0, max_tokens=5)
    theirs = sdk.execute_text_completion(ExecuteTextCompletionRequest(deployment_id=DEPLOYMENT, body=body))
    ours = opened(pangu.origin, ak="AKEXAMPLE", sk="SKEXAMPLE").generate(Raw("once upon"), max_tokens=5)
    assert theirs.choices[0].text == ours.text
    assert pangu.seen[0].json == pangu.seen[1].json
