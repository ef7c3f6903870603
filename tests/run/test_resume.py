"""A second run goes on where the first ended: nothing asked twice, nothing lost, nothing mixed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memserve.errors import BadRequest, InvalidInput, JournalBroken, ServerFailed
from memserve.run import answers, run

ASKED = [{"id": f"q{n}", "prompt": f"prompt {n}"} for n in range(20)]


def test_nothing_is_asked_twice(fake, out, rows):
    run(ASKED[:12], out, generator=fake())
    generator = fake()
    summary = run(ASKED, out, generator=generator)
    assert (summary.done, summary.resumed) == (8, 12)
    assert len(generator.asked) == 8
    assert sorted(row["id"] for row in rows(out)) == sorted(item["id"] for item in ASKED)


def test_bare_prompts_are_known_by_their_words_wherever_they_stand(fake, out, rows):
    run(["a", "b", "a"], out, generator=fake())
    generator = fake()
    run(["new", "b", "a", "a", "a"], out, generator=generator)
    assert sorted(generator.asked) == ["a", "new"]
    assert len({row["id"] for row in rows(out)}) == 5


def test_the_same_request_twice_in_one_input_is_asked_once(fake, out):
    generator = fake()
    summary = run([ASKED[0], ASKED[1], ASKED[0]], out, generator=generator)
    assert (summary.done, summary.repeated) == (2, 1)


@pytest.mark.parametrize("change", [{"prompt": "another"}, {"max_tokens": 3}, {"seed": 1}])
def test_one_id_never_stands_for_two_requests(fake, out, rows, failed, change):
    run(ASKED[:1], out, generator=fake())
    generator = fake()
    summary = run([{**ASKED[0], **change}], out, generator=generator)
    assert (summary.failed, generator.asked) == (1, [])
    assert "another prompt or other settings" in failed()[0]["message"]
    assert [row["text"] for row in rows(out)] == ["PROMPT 0"]


def test_a_clash_does_not_replace_the_first(fake, out):
    summary = run([ASKED[0], {"id": "q0", "prompt": "other"}, ASKED[0]], out, generator=fake())
    assert (summary.done, summary.failed, summary.repeated) == (1, 1, 1)


def test_settings_of_the_run_belong_to_the_request(fake, out):
    run(["a"], out, generator=fake(), settings={"max_tokens": 5})
    generator = fake()
    run([{"prompt": "a", "max_tokens": 5}], out, generator=generator)
    assert generator.asked == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 400), junk=st.sampled_from([b"", b"\0" * 40, b'{"id": "q', b"\xff\xfe"]))
def test_a_torn_last_record_is_asked_again(fake, tmp_path, cut, junk):
    out = tmp_path / "torn.jsonl"
    out.unlink(missing_ok=True)
    run(ASKED[:3], out, generator=fake(), order="given", concurrency=1)
    whole = out.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    out.write_bytes(whole[: -min(cut, last)] + junk)
    run(ASKED[:3], out, generator=fake())
    found = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert sorted(row["id"] for row in found) == ["q0", "q1", "q2"]


def test_a_changed_last_line_is_asked_again(fake, out, rows):
    run(ASKED[:2], out, generator=fake())
    out.write_bytes(out.read_bytes().replace(b"PROMPT 1", b"PROMPT 9"))
    run(ASKED[:2], out, generator=fake())
    assert sorted(row["text"] for row in rows(out)) == ["PROMPT 0", "PROMPT 1"]


@pytest.mark.parametrize("text", ["my notes", "my notes\n", "{}", '{"name": "x"}'])
def test_a_file_that_is_no_answers_file_is_not_touched(text, fake, out):
    out.write_text(text)
    with pytest.raises(JournalBroken):
        run(ASKED[:1], out, generator=fake())
    assert out.read_text() == text


@pytest.mark.parametrize("rest", [b"\0" * 100, b'{"i', b'{"id": "q0", "index": 0, "te', b"\n"])
def test_what_a_crash_leaves_of_the_first_record_is_cut_off(rest, fake, out):
    out.write_bytes(rest)
    assert run(ASKED[:1], out, generator=fake()).done == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_is_refused_whatever_name_it_has(fake, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.symlink_to("/dev/full")
    with pytest.raises(InvalidInput, match="no regular file"):
        run(ASKED[:3], out, generator=fake())


def test_damage_before_the_last_record_is_told_and_nothing_is_touched(fake, out):
    run(ASKED[:3], out, generator=fake(), concurrency=1)
    damaged = out.read_bytes().replace(b"PROMPT 0", b"PROMPT 7")
    out.write_bytes(damaged)
    with pytest.raises(JournalBroken, match="line 1 of"):
        run(ASKED, out, generator=fake())
    assert out.read_bytes() == damaged


def test_a_removed_line_is_asked_again(fake, out):
    run(ASKED[:3], out, generator=fake(), concurrency=1)
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[1:]))
    generator = fake()
    run(ASKED[:3], out, generator=generator)
    assert generator.asked == ["prompt 0"]


def test_lines_of_another_program_count_by_their_id(fake, out):
    out.write_text('{"id": "q1", "text": "theirs"}\n')
    generator = fake()
    assert run(ASKED[:3], out, generator=generator).resumed == 1
    assert "prompt 1" not in generator.asked


@pytest.mark.parametrize("last", [None, b'{"id": "q2", "text": "theirs"}'])
def test_a_whole_last_line_without_its_end_is_an_answer(fake, out, last):
    """An editor took the end away, or another program wrote none."""
    run(ASKED[:2], out, generator=fake(), concurrency=1)
    before = out.read_bytes()[:-1] if last is None else out.read_bytes() + last
    out.write_bytes(before)
    generator = fake()
    assert run(ASKED[:3], out, generator=generator).resumed == (2 if last is None else 3)
    assert out.read_bytes().startswith(before + b"\n")
    assert [row["id"] for row in answers(out)] == ["q0", "q1", "q2"]


def test_failures_that_may_pass_are_asked_again_and_others_only_on_demand(fake, out, failed):
    script = {"prompt 1": [ServerFailed("busy")], "prompt 2": [BadRequest("bad")]}
    assert run(ASKED[:4], out, generator=fake(script)).failed == 2

    second = fake()
    summary = run(ASKED[:4], out, generator=second)
    assert second.asked == ["prompt 1"]
    assert (summary.done, summary.resumed, summary.failed) == (1, 2, 1)
    assert [row["id"] for row in failed()] == ["q2"]

    third = fake()
    assert run(ASKED[:4], out, generator=third, retry_failed=True).failed == 0
    assert third.asked == ["prompt 2"]
    assert failed() == []


def test_a_fresh_start_keeps_the_old_answers_aside(fake, out, rows):
    run(ASKED[:2], out, generator=fake())
    generator = fake()
    run(ASKED[:1], out, generator=generator, resume=False)
    assert generator.asked == ["prompt 0"]
    assert len(rows(out)) == 1
    assert len(rows(out.with_name("answers.jsonl.old-1"))) == 2
