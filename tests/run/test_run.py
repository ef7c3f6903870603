"""What a caller relies on: what may be asked, what is written, and what is told."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import json
import lzma
import math
import os
import threading

import pytest
from waiting import until

import memserve
from memserve.errors import BadRequest, ConnectionFailed, InvalidInput, ServerFailed, UnknownName
from memserve.protocol import Completion, Raw, Request, Sample, TokenLogprob, ToolCall, Usage
from memserve.run import answers, run


def test_everything_that_may_be_a_request(fake, out, rows):
    messages = [{"role": "user", "content": "four"}]
    asked = [
        Request(id="a", prompt="one", max_tokens=7),
        {"id": 2, "prompt": "two", "temperature": 0.5, "stop": "x", "meta": {"gold": "zwei"}},
        "three",
        messages,
        {"prompt": messages, "seed": 3},
        [1, 2, 3],
        Raw("five"),
        {"prompt": {"raw": "six"}},
    ]
    generator = fake()
    summary = run(asked, out, generator=generator)
    by_index = {row["index"]: row for row in rows(out)}
    assert (summary.done, summary.failed, summary.total) == (8, 0, 8)
    assert by_index[0]["id"] == "a"
    assert by_index[1]["id"] == 2
    assert by_index[1]["meta"] == {"gold": "zwei"}
    assert by_index[2]["text"] == "THREE"
    assert by_index[0]["usage"] == {"prompt_tokens": 10, "completion_tokens": 5}
    assert {"max_tokens": 7} in generator.settings
    assert {"temperature": 0.5, "stop": ("x",)} in generator.settings
    assert generator.asked.count(Raw("six")) == 1


def test_requests_come_lazily_and_from_a_file(fake, out, tmp_path, rows):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id": "a", "prompt": "one"}\n\n"two"\n[7, 8]\n{"id": "c", "prompt": "three"}'
    )
    assert run(path, out, generator=fake()).done == 4
    assert sorted(row["text"] for row in rows(out)) == ["ONE", "THREE", "TWO", "[7, 8]"]


NO_LINES = [
    (gzip.compress(b'"a"\n'), r"gzip.*zcat"), (bz2.compress(b'"a"\n'), r"bzip2.*bzcat"),
    (lzma.compress(b'"a"\n'), r"xz.*xzcat"), ('"a"\n'.encode("utf-16"), r"UTF-16.*iconv"),
    (b"id,prompt\n1,hello\n", "no JSON.*jq -R"), (b"hello\n\nyou\n", "no JSON"), (b"PAR1\x15\x04", "no JSON"),
    (b'[\n {"prompt": "a"}\n]', r"list.*jq"), (b'{\r\n "prompt": "a"\r\n}', r"several lines.*jq"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "said"), NO_LINES, ids=range(len(NO_LINES)))
def test_a_file_of_another_form_is_said_to_be(fake, out, tmp_path, content, said):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        run(path, out, generator=fake())
    assert not out.exists()


def test_answers_do_not_go_to_a_file_named_like_standard_output(fake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="not '-'"):
        run(["a"], "-", generator=fake())
    assert not list(tmp_path.iterdir())


def test_bad_lines_are_failed_items_with_their_line_number(fake, out, tmp_path, failed):
    path = tmp_path / "requests.jsonl"
    lines = [
        '{"prompt": "ok"}',
        '{"prompt": ',
        "5",
        '{"prompt": "x", "max_token": 5}',
        '{"id": 1.5, "prompt": "x"}',
        '{"prompt": "x", "prompt": "y"}',
        '[{"prompt": "x"}, {"prompt": "y"}]',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    summary = run(path, out, generator=fake())
    assert (summary.done, summary.failed) == (1, 6)
    told = {row["line"]: row["message"] for row in failed()}
    assert sorted(told) == [2, 3, 4, 5, 6, 7]
    assert "max_token" in told[4]
    assert "line 2 is not JSON" in told[2]
    assert told[3].endswith("but a number")
    assert "line 6 is not JSON: 'prompt' stands there twice" in told[6]
    assert "a list of requests" in told[7]


@pytest.mark.parametrize(
    "bad", [{"id": "x"}, {"prompt": []}, 5, None, {"prompt": [1, "a"]}, b"bytes", {"prompt": {}}]
)
def test_what_is_no_request_fails_alone(fake, out, bad):
    summary = run(["fine", bad], out, generator=fake())
    assert (summary.done, summary.failed) == (1, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"rpm": -1},
        {"concurrency": 1.5},
        {"budget": "lots"},
        {"order": "none"},
        {"settings": {"x": 1}},
        {"settings": {"max_tokens": -3}},
        {"resume": "no"},
        {"batch": 1},
        {"cache": 5},
        {"page": True},
        {"watch": "9400"},
        {"budgt": 3},
    ],
)
def test_malformed_options_are_refused_before_any_work(fake, out, options):
    generator = fake()
    with pytest.raises(InvalidInput):
        run(["a"], out, generator=generator, **options)
    assert not generator.asked
    assert not out.exists()


def test_a_keyword_that_is_not_known_names_the_nearest(fake, out):
    for call, word, meant in ((run, "budgt", "budget"), (memserve.route, "most_eur", "most_usd")):
        with pytest.raises(UnknownName, match=rf"{word}.*did you mean {meant}\?"):
            call([fake()], **{word: 3})


def test_malformed_calls(fake, out, tmp_path):
    with pytest.raises(InvalidInput, match="cannot read"):
        run(tmp_path / "missing.jsonl", out, generator=fake())
    with pytest.raises(InvalidInput, match="not a generator"):
        run(["a"], out, generator=object())
    out.write_text("")
    with pytest.raises(InvalidInput, match="both"):
        run(out, out, generator=fake())
    with pytest.raises(InvalidInput):
        run({"prompt": "a"}, out, generator=fake())


def test_one_failure_does_not_stop_the_others(fake, out, rows, failed):
    generator = fake({"b": [BadRequest("too odd", status=400)], "c": [RuntimeError("bug")]})
    summary = run(["a", "b", "c", "d"], out, generator=generator)
    assert (summary.done, summary.failed) == (2, 2)
    told = {row["error"]: row for row in failed()}
    assert told["BadRequest"]["status"] == 400
    assert told["BadRequest"]["retryable"] is False
    assert "bug" in told["RuntimeError"]["message"]


def test_transient_failures_are_told_too(fake, out, failed):
    summary = run(["a", "b"], out, generator=fake({"b": [ServerFailed("boom", status=500)]}))
    assert (summary.done, summary.failed) == (1, 1)
    assert failed()[0]["retryable"] is True


@pytest.mark.slow
def test_a_server_that_never_worked_ends_the_run_soon(fake, out):
    generator = fake({"*": [ConnectionFailed("refused") for _ in range(100_000)]})
    with pytest.raises(memserve.errors.RunError, match="every request fails"):
        run((f"p{n}" for n in range(100_000)), out, generator=generator)
    assert len(generator.asked) < 1000


@pytest.mark.parametrize(
    "settings",
    [{"max_tokens": "many"}, {"max_tokens": -3}, {"temperature": "hot"}, {"n": 0}, {"seed": 1.5}],
)
@pytest.mark.parametrize("form", [dict, Request], ids=["mapping", "Request"])
def test_a_malformed_setting_fails_its_item_alone(settings, form, fake, out, failed):
    summary = run([form(prompt="a", **settings), "b"], out, generator=fake())
    assert (summary.done, summary.failed) == (1, 1)
    assert [row["error"] for row in failed()] == ["InvalidInput"]


def test_a_generator_that_cancels_by_itself_fails_its_item(fake, out, failed):
    summary = run(["a", "b"], out, generator=fake({"a": [asyncio.CancelledError()]}))
    assert (summary.done, summary.failed, summary.pending) == (1, 1, 0)
    assert [row["error"] for row in failed()] == ["Cancelled"]


def test_concurrency_is_the_most_in_flight(fake, out):
    generator = fake(seconds=0.01)
    run([f"p{n}" for n in range(100)], out, generator=generator, concurrency=7)
    assert generator.most == 7


def test_concurrency_grows_by_itself(fake, out):
    generator = fake(seconds=0.01)
    run([f"p{n}" for n in range(600)], out, generator=generator)
    assert 64 <= generator.most <= 256


def test_a_generator_that_only_blocks(blocking, out, rows):
    generator = blocking()
    assert run([f"p{n}" for n in range(60)], out, generator=generator, concurrency=6).done == 60
    assert 2 <= generator.most <= 6
    assert len(rows(out)) == 60


def test_answers_are_on_disk_at_once(fake, out, rows):
    seen = []

    def requests():
        yield "first"
        until(lambda: rows(out))
        seen.extend(rows(out))
        yield "second"

    run(requests(), out, generator=fake())
    assert [row["text"] for row in seen] == ["FIRST"]


def test_inside_a_running_event_loop(fake, out):
    async def notebook():
        return run(["a", "b"], out, generator=fake())

    assert asyncio.run(notebook()).done == 2


def test_what_the_iterable_raises_comes_out_after_what_was_read_is_answered(fake, out, rows):
    def requests():
        yield "a"
        raise LookupError("the caller's own bug")

    with pytest.raises(LookupError):
        run(requests(), out, generator=fake())
    assert [row["text"] for row in rows(out)] == ["A"]


def test_a_line_holds_all_that_is_known_and_stays_one_line(fake, out, rows):
    told = (TokenLogprob("a", -math.inf, 5, (("b", math.nan),)),)
    completion = Completion(
        text="line\u2028sep\x85 \ud800 \n end", finish_reason="tool_calls", logprobs=told, token_ids=(1, 2),
        tool_calls=(ToolCall("1", "f", "{}"),), samples=(Sample("x"), Sample("y")), reasoning="why",
        usage=Usage(3, 4, 2), model="m-2", request_id="r",
    )  # fmt: skip
    run(["a"], out, generator=fake({"a": [completion]}))
    assert len(out.read_text(encoding="utf-8", errors="surrogatepass").splitlines()) == 1
    row = rows(out)[0]
    assert row["text"] == completion.text
    assert row["token_ids"] == [1, 2]
    assert row["logprobs"][0]["logprob"] is None
    assert [sample["text"] for sample in row["samples"]] == ["x", "y"]
    assert row["tool_calls"] == [{"id": "1", "name": "f", "arguments": "{}"}]
    json.loads(out.read_bytes(), parse_constant=pytest.fail)
    assert list(answers(out)) == [row]


def test_an_empty_input_makes_an_empty_output(fake, out):
    assert run([], out, generator=fake()).total == 0
    assert out.read_bytes() == b""


def test_a_wrong_answer_type_is_a_failure(fake, out, failed):
    assert run(["a"], out, generator=fake({"a": ["just text"]})).failed == 1
    assert failed()[0]["error"] == "BadAnswer"


def test_the_summary_is_one_readable_line(fake, out):
    text = str(run(["a", "b"], out, generator=fake()))
    assert "2 answered, 0 failed, 30 tokens" in text
    assert "\n" not in text


def test_requests_from_a_pipe(fake, out, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('"a"\n"b"\n',))
    writer.start()
    assert run(pipe, out, generator=fake()).done == 2
    writer.join()
