"""A key that travels where others can read it is warned of, once."""

import logging

import pytest

import memserve
from memserve.errors import MemserveError
from memserve.http.connect import _warned


@pytest.mark.parametrize(
    ("url", "told"),
    [("http://192.0.2.7:8000/v1", 1), ("http://gpu.example/v1", 1), ("https://gpu.example/v1", 0),
     ("http://127.0.0.1:8000/v1", 0), ("http://localhost/v1", 0), ("http://[::1]:8000/v1", 0)],
)  # fmt: skip
def test_a_key_over_plain_http(url: str, told: int, caplog: pytest.LogCaptureFixture) -> None:
    _warned.clear()
    with caplog.at_level(logging.WARNING, "memserve"):
        for _ in range(2):
            options = {"base_url": url, "api_key": "sk-secret", "dialect": "generic"}  # so nobody is asked
            memserve.generator("m", backend="openai", **options).close()
    said = [record.getMessage() for record in caplog.records if "plain http" in record.getMessage()]
    assert len(said) == told
    assert "sk-secret" not in caplog.text


def test_an_error_holds_no_control_characters() -> None:
    """What a server says may drive a terminal, or forge a line of a log."""
    text = str(MemserveError("no \x1b]0;title\x07 \x1b[31m\r\nFAKE LOG LINE", hint="a\nb"))
    assert text.isprintable()
    assert "FAKE LOG LINE" in text
