"""Server-sent events from bytes split anywhere, in any line ending."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memserve.errors import BadAnswer
from memserve.http.sse import Event, Parser

WORDS = (
    'data: {"a": "x\u2028\u0085y"}\n\n: c\n\nevent: ping\ndata:1\ndata: 2\n\nid: 3\nretry: 5\n\ndata\n\n'
    "data: [DONE]\n\n"
)
WANTED = [
    Event("message", '{"a": "x\u2028\u0085y"}'),
    Event("ping", "1\n2"),
    Event("message", ""),
    Event("message", "[DONE]"),
]


def parse(pieces, limit=1000):
    parser = Parser(limit)
    found = [event for piece in pieces for event in parser.feed(piece)]
    return found + list(parser.finish())


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_split_at_every_byte(end, bom):
    data = bom + WORDS.replace("\n", end).encode()
    for at in range(len(data) + 1):
        assert parse([data[:at], data[at:]]) == WANTED
    assert parse([data[i : i + 1] for i in range(len(data))]) == WANTED


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=20)
    ),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    data=st.data(),
)
def test_what_is_written_is_read(texts, end, data):
    written = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    pieces = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    assert [event.data for event in parse(pieces)] == texts


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=8))
def test_no_bytes_break_it(pieces):
    try:
        whole = parse([b"".join(pieces)])
    except BadAnswer:
        with pytest.raises(BadAnswer):
            parse(pieces)
    else:
        assert parse(pieces) == whole


def test_the_last_event_needs_no_blank_line():
    assert parse([b"data: [DONE]"]) == [Event("message", "[DONE]")]


@pytest.mark.parametrize(
    "piece", [b"x" * 200, b"data: " + b"y" * 200 + b"\n", b"data: yyyyyyyyyyyyyyy\n" * 10]
)
def test_an_event_has_a_limit(piece):
    with pytest.raises(BadAnswer, match="exceeds"):
        parse([piece] * 3, limit=100)
