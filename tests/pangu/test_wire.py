"""What is sent to Pangu and what is read from it."""

from __future__ import annotations

import pytest
from fake_pangu import V1
from faulty_server import SSE_HEAD, raw, reply, stream

import memserve
from memserve import Raw, errors


def test_v1_names_the_deployment_in_its_path(pangu, opened):
    answer = opened(pangu.origin, api_key=pangu.key).generate("hi", max_tokens=5, temperature=0.5, top_p=0.9)
    seen = pangu.seen[0]
    assert seen.path == f"{V1}/chat/completions"
    assert seen.headers["x-apig-appcode"] == pangu.key
    assert "authorization" not in seen.headers
    assert seen.json == {
        "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "top_p": 0.9, "max_tokens": 5,
    }  # fmt: skip
    assert len(answer.text.split()) == answer.usage.completion_tokens == 5
    assert type(answer.usage.prompt_tokens) is int
    assert answer.finish_reason == "length"


def test_v2_names_the_model_and_takes_a_bearer_key(pangu, opened):
    generator = opened(pangu.origin, api="v2", model="pangu-n1", api_key=pangu.key)
    assert generator.generate("hi", max_tokens=5, stop=["zzz"]).text
    seen = pangu.seen[0]
    assert seen.path == "/api/v2/chat/completions"
    assert seen.headers["authorization"] == f"Bearer {pangu.key}"
    assert "x-apig-appcode" not in seen.headers
    assert seen.json["model"] == "pangu-n1"


@pytest.mark.parametrize(
    ("base_url", "path"),
    [("{}", "/api/v2/chat/completions"), ("{}/api/v2", "/api/v2/chat/completions"),
     ("{}/api/v2/chat/completions", "/api/v2/chat/completions")],
)  # fmt: skip
def test_a_base_url_alone_means_the_openai_format(base_url, path, pangu):
    url = base_url.format(pangu.origin)
    with memserve.generator("m", backend="pangu", base_url=url, api_key=pangu.key) as generator:
        generator.generate("hi", max_tokens=2)
    assert pangu.seen[0].path == path


@pytest.mark.parametrize("end", ["", "/v1", f"{V1}", f"{V1}/chat/completions"])
def test_v1_is_found_below_any_of_its_addresses(end, pangu, opened):
    opened(pangu.origin + end, api_key=pangu.key).generate("hi", max_tokens=2)
    assert pangu.seen[0].path == f"{V1}/chat/completions"


def test_a_deployment_may_be_named_as_the_model(pangu):
    options = {"base_url": pangu.origin, "project_id": "PID", "api_key": pangu.key}
    with memserve.generator("DID", backend="pangu", **options) as generator:
        assert generator.generate("hi", max_tokens=2).text
    assert pangu.seen[0].path == f"{V1}/chat/completions"


def test_the_environment_names_the_place(pangu, monkeypatch):
    monkeypatch.setenv("PANGU_API_KEY", pangu.key)
    monkeypatch.setenv("PANGU_DEPLOYMENT_ID", "DID")
    monkeypatch.setenv("HUAWEICLOUD_SDK_PROJECT_ID", "PID")
    with memserve.generator("m", backend="pangu", base_url=pangu.origin) as generator:
        generator.generate("hi", max_tokens=2)
    monkeypatch.setenv("PANGU_BASE_URL", pangu.origin)
    with memserve.generator(None, backend="pangu") as generator:
        generator.generate("hi", max_tokens=2)
    assert [seen.path for seen in pangu.seen] == ["/api/v2/chat/completions", f"{V1}/chat/completions"]


def test_raw_text_goes_to_text_completions(pangu, opened):
    generator = opened(pangu.origin, api_key=pangu.key)
    answer = generator.generate(Raw("once upon a time"), max_tokens=4)
    assert pangu.seen[0].path == f"{V1}/text/completions"
    assert pangu.seen[0].json["prompt"] == "once upon a time"
    assert "".join(d.text for d in generator.stream(Raw("once upon a time"), max_tokens=4)) == answer.text


def test_two_samples(pangu, opened):
    answer = opened(pangu.origin, api_key=pangu.key).generate("hi", n=2, max_tokens=4, temperature=1)
    assert len({sample.text for sample in answer.samples}) == 2


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_streams_end_with_done_or_without(done, api, pangu, opened):
    pangu.done = done
    generator = opened(pangu.origin, api_key=pangu.key, api=api, model="m")
    deltas = list(generator.stream("hi", max_tokens=6))
    assert "".join(delta.text for delta in deltas) == generator.generate("hi", max_tokens=6).text
    assert deltas[-1].finish_reason == "length"
    assert [delta.usage for delta in deltas if delta.usage is not None] == [deltas[-1].usage]
    assert deltas[-1].usage.completion_tokens == 6


def _chunk(text: str, finish: str = "null") -> bytes:
    return b'data:{"choices":[{"index":0,"finish_reason":%s,"message":{"content":"%s"}}]}\n\n' % (
        finish.encode(), text.encode(),
    )  # fmt: skip


def test_unknown_events_are_passed_over(server, opened):
    odd = b'event: moderation\ndata: {"suggestion":"pass"}\n\n: note\n\nevent:usage\ndata:{"x":1}\n\n'
    server.will(stream(_chunk("o"), odd, _chunk("k"), _chunk("", '"stop"')))
    deltas = list(opened(server.base_url, api_key="k" * 9).stream("hi"))
    assert "".join(delta.text for delta in deltas) == "ok"
    assert deltas[-1].finish_reason == "stop"


def test_a_moderation_that_blocks_is_a_refusal(server, opened):
    server.will(stream(_chunk("o"), b'event: moderation\ndata: {"suggestion":"block"}\n\n'))
    with pytest.raises(errors.ContentRefused):
        list(opened(server.base_url, api_key="k" * 9).stream("hi"))


def test_a_stream_that_breaks_before_its_end_raises(server, opened):
    server.will(raw(SSE_HEAD + _chunk("half")))
    with pytest.raises(errors.ConnectionFailed):
        list(opened(server.base_url, api_key="k" * 9).stream("hi"))


def _ending(reason: str) -> bytes:
    return (
        b'{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"%s"}]}'
        % reason.encode()
    )


def test_an_answer_cut_for_lack_of_resources_is_asked_for_again(server, opened):
    server.will(reply(200, _ending("insufficient_system_resource")), reply(200, _ending("stop")))
    assert opened(server.base_url, api_key="k" * 9).generate("hi").finish_reason == "stop"
    server.will(reply(200, _ending("insufficient_system_resource")))
    with pytest.raises(errors.ServerFailed, match="insufficient_system_resource"):
        opened(server.base_url, api_key="k" * 9).generate("hi")


def test_reasoning_is_kept_apart(server, opened):
    message = b'{"role":"assistant","content":"yes","reasoning_content":"hm"}'
    server.will(reply(200, b'{"choices":[{"index":0,"message":%s,"finish_reason":"stop"}]}' % message))
    answer = opened(server.base_url, api_key="k" * 9).generate("hi")
    assert (answer.text, answer.reasoning) == ("yes", "hm")
