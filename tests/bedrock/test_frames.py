"""Amazon's framing, split anywhere and broken anywhere."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from fake_bedrock import frame
from hypothesis import given
from hypothesis import strategies as st

from memserve.errors import BadAnswer, ConnectionFailed
from memserve_bedrock.answer import Frames

LIMIT = 2**20
WHOLE = b"".join(frame(f"event{i}", {"text": "语" * i}) for i in range(4))


def read(data, *cuts):
    frames = Frames(LIMIT)
    edges = [0, *sorted(cuts), len(data)]
    found = [f for a, b in pairwise(edges) for f in frames.feed(data[a:b])]
    frames.finish()
    return found


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_frames_may_be_split_anywhere(cuts):
    found = read(WHOLE, *cuts)
    assert [f.headers[":event-type"] for f in found] == [f"event{i}" for i in range(4)]
    assert [json.loads(f.payload)["text"] for f in found] == ["语" * i for i in range(4)]


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at, change):
    broken = bytearray(WHOLE)
    broken[at] ^= change
    with pytest.raises((BadAnswer, ConnectionFailed)):
        read(bytes(broken))


def test_a_cut_stream_is_noticed():
    with pytest.raises(ConnectionFailed):
        read(WHOLE[:-1])


def test_a_frame_has_a_limit():
    with pytest.raises(BadAnswer, match="exceeds"):
        read(frame("large", {"text": "x" * LIMIT}))


def test_other_kinds_of_headers_are_passed_over():
    import struct
    import zlib

    head = b"\x01a\x00\x01b\x04\x00\x00\x00\x07\x01c\x06\x00\x02xy\x01d\x07\x00\x02ok"
    prelude = struct.pack(">II", 16 + len(head), len(head))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + head
    (found,) = read(body + struct.pack(">I", zlib.crc32(body)))
    assert found.headers == {"d": "ok"}
