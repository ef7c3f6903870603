"""AWS's own code proves ours honest: botocore signs alike, boto3 reads our fake Bedrock."""

from __future__ import annotations

import datetime

import pytest
from extras import need
from fake_bedrock import ACCESS, SECRET

from memserve.http import Secret
from memserve_bedrock.engine import Keys, authorization

MODEL = "us.anthropic.claude-3-5-sonnet-20240620-v1:0"


@pytest.mark.parametrize("session", [None, "session-token/+="])
@pytest.mark.parametrize(
    "path",
    [
        "/model/amazon.nova-lite-v1%3A0/converse",
        "/",
        "/model/arn%3Aaws%3Abedrock%3A%2Fx/converse-stream?b=2&a=1%202",
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", '{"text":"你好"}'.encode()])
def test_botocore_signs_alike(session, path, body, monkeypatch):
    auth = need("botocore.auth", "oracles")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    moment = datetime.datetime(2026, 11, 20, 4, 5, 6, tzinfo=datetime.timezone.utc)
    monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: moment)
    url = f"https://bedrock-runtime.us-east-1.amazonaws.com{path}"
    theirs = AWSRequest("POST", url, headers={"Content-Type": "application/json"}, data=body)
    auth.SigV4Auth(Credentials(ACCESS, SECRET, session), "bedrock", "us-east-1").add_auth(theirs)
    headers = {"Content-Type": "application/json", "Host": "bedrock-runtime.us-east-1.amazonaws.com",
               "X-Amz-Date": theirs.headers["X-Amz-Date"]}  # fmt: skip
    if session:
        headers["X-Amz-Security-Token"] = session
    keys = Keys(ACCESS, Secret(SECRET), Secret(session) if session else None)
    assert authorization("POST", url, headers, body, keys, "us-east-1") == theirs.headers["Authorization"]


@pytest.fixture
def sdk(bedrock):
    boto3 = need("boto3", "oracles")
    from botocore.config import Config

    client = boto3.client(
        "bedrock-runtime", endpoint_url=bedrock.origin, region_name="us-east-1", aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET, config=Config(retries={"total_max_attempts": 1}, read_timeout=5),
    )  # fmt: skip
    yield client
    client.close()


ASKED = {
    "modelId": MODEL,
    "messages": [{"role": "user", "content": [{"text": "hi"}]}],
    "system": [{"text": "be brief"}],
    "inferenceConfig": {"maxTokens": 7, "temperature": 0.0, "topP": 1.0},
}
TALK = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


def test_the_sdk_reads_the_same_answer(sdk, bedrock, opened):
    theirs = sdk.converse(**ASKED)
    ours = opened(bedrock.origin, MODEL).generate(TALK, max_tokens=7)
    assert theirs["output"]["message"]["content"][0]["text"] == ours.text
    assert theirs["stopReason"] == "max_tokens"
    assert theirs["usage"]["outputTokens"] == ours.usage.completion_tokens
    first, second = bedrock.seen
    assert first.path == second.path
    assert first.json == second.json


def test_the_sdk_reads_the_same_stream(sdk, bedrock, opened):
    events = list(sdk.converse_stream(**ASKED)["stream"])
    theirs = "".join(
        event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event
    )
    deltas = list(opened(bedrock.origin, MODEL).stream(TALK, max_tokens=7))
    assert theirs == "".join(delta.text for delta in deltas)
    assert events[-1]["metadata"]["usage"]["outputTokens"] == deltas[-1].usage.completion_tokens
    assert bedrock.seen[0].path == bedrock.seen[1].path


def test_the_sdk_knows_our_errors(sdk):
    with pytest.raises(sdk.exceptions.ValidationException, match="too long"):
        sdk.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "word " * 5000}]}])


def test_botocores_own_credentials_are_borrowed(bedrock, opened, monkeypatch, tmp_path):
    """A role or single sign-on is botocore's affair; here a process hands the keys out."""
    need("botocore", "oracles")
    words = f'{{"Version": 1, "AccessKeyId": "{ACCESS}", "SecretAccessKey": "{SECRET}"}}'
    (tmp_path / "keys.json").write_text(words)
    (tmp_path / "config").write_text(f"[profile sso]\ncredential_process = cat {tmp_path}/keys.json\n")
    generator = opened(bedrock.origin, profile="sso", region="us-east-1")
    assert generator.generate("hi", max_tokens=2).text
