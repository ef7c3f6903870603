"""Image parts: one form for every engine, and nothing read or fetched that the caller did not hand over."""

from __future__ import annotations

import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memserve import pictures
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Capabilities, Completion

if TYPE_CHECKING:
    from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
URL = f"data:image/png;base64,{b64encode(PNG).decode()}"


class Here:
    """Answers in this process with the address that it was shown."""

    capabilities = Capabilities(backend="toy", chat=True, images=True, score=True, count_tokens=True)

    def generate(self, requests: Any) -> list[Completion]:
        return [Completion(_shown(request.prompt)) for request in requests]

    def count_tokens(self, prompt: Any) -> int:
        return len(_shown(prompt))


class There:
    """The same behind a wire."""

    capabilities = Here.capabilities

    async def complete(self, request: Any) -> Completion:
        return Completion(_shown(request.prompt))


def _shown(prompt: Any) -> str:
    [part] = [part for message in prompt for part in message["content"] if part["type"] == "image_url"]
    return str(part["image_url"]["url"])


def _ask(engine: Any, shown: Any, images_from: str | None = None, **about: Any) -> str:
    generator = Generator(engine, for_engine(engine, 1), images_from=images_from)
    part = {"type": "image_url", "image_url": {"url": shown, **about}}
    return str(generator.generate([{"role": "user", "content": [part]}]).text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "one.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def site() -> Iterator[str]:
    """A server on this machine that gives one picture, and counts how often."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked += 1  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PNG if "none" not in self.path else b"<html>")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.asked = 0  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/one.png?key=hidden"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("engine", [Here(), There()], ids=["here", "there"])
def test_what_the_caller_hands_over_becomes_a_data_url(engine: Any, file: Path) -> None:
    assert _ask(engine, URL) == URL
    assert _ask(engine, file) == URL
    assert _ask(engine, PNG) == URL


@pytest.mark.parametrize(
    "part",
    [{"type": "image_url", "image_url": URL}, {"type": "input_image", "image_url": URL},
     {"type": "image", "image": PNG}, {"type": "image", "url": URL},
     {"type": "image_url", "image_url": {"url": URL, "detail": "low"}, "cache_control": {"a": 1}}],
    ids=lambda part: part["type"],
)  # fmt: skip
def test_every_spelling_becomes_one_and_loses_nothing(part: dict[str, Any]) -> None:
    made = pictures.settled(part, "data", remote=True)
    assert (made["type"], made["image_url"]["url"]) == ("image_url", URL)
    given = part.get("image_url")
    assert made["image_url"].get("detail") == (given.get("detail") if isinstance(given, dict) else None)
    assert made.get("cache_control") == part.get("cache_control")


class Drawn:
    """What is asked of a PIL image."""

    width = height = 8

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def convert(self, mode: str) -> Drawn:
        return Drawn(mode)

    def save(self, file: Any, kind: str, **_: Any) -> None:
        assert (kind, self.mode) in {("PNG", "RGB"), ("PNG", "RGBA")}, "nothing is lost on the way"
        file.write(PNG)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "F"])
def test_a_pil_image_is_written_without_loss(mode: str) -> None:
    assert _ask(Here(), Drawn(mode)) == URL


def test_a_string_names_a_file_where_its_bytes_stay_here(file: Path) -> None:
    assert _ask(Here(), str(file)) == URL
    assert _ask(Here(), file.as_uri()) == URL
    assert _ask(There(), str(file), "paths") == URL
    for engine, asked in ((There(), None), (Here(), "data")):
        with pytest.raises(InvalidInput, match="images_from='paths'"):
            _ask(engine, str(file), asked)


def test_an_address_is_fetched_with_consent_alone(site: str) -> None:
    assert _ask(Here(), site, "urls") == URL
    assert _ask(There(), site, "urls") == site, "a server fetches it itself"
    for asked in (None, "data", "paths"):
        with pytest.raises(InvalidInput, match="images_from='urls'") as caught:
            _ask(Here(), site, asked)
        assert "hidden" not in str(caught.value)
    with pytest.raises(InvalidInput, match="none that is known"):
        _ask(Here(), site.replace("one", "none"), "urls")
    with pytest.raises(InvalidInput, match="cannot be fetched") as caught:
        _ask(Here(), "http://127.0.0.1:1/x.png?key=hidden", "urls")
    assert "hidden" not in str(caught.value)


def test_sizes_are_bounded(file: Path, monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    monkeypatch.setattr(pictures, "MOST_BYTES", 32)
    long = f"data:image/png;base64,{b64encode(bytes(256)).decode()}"
    for shown in (PNG, file, str(file), site, long):
        with pytest.raises(InvalidInput):
            _ask(Here(), shown, "urls")


@pytest.mark.parametrize(
    "shown",
    ["", "nowhere.png", "/dev/zero", "/etc/passwd", "data:text/html;base64,AAAA", "data:image/png,raw",
     "data:image/png;base64,???", "file:///nowhere", "a\0b", 7, None, {}, [], b"GIVEN", Path("/")],
    ids=repr,
)  # fmt: skip
def test_what_is_no_picture_is_refused(shown: Any) -> None:
    with pytest.raises(InvalidInput, match="message 0"):
        _ask(Here(), shown)


def test_a_wrong_consent_is_refused() -> None:
    with pytest.raises(InvalidInput, match="images_from"):
        _ask(Here(), URL, "anything")


def test_no_engine_scores_after_a_picture_and_none_hears() -> None:
    generator = Generator(Here(), for_engine(Here(), 1))
    talk = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]
    with pytest.raises(Unsupported, match="images"):
        generator.score([(talk, "x")])
    with pytest.raises(Unsupported, match="audio"):
        generator.generate([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])
    assert generator.count_tokens(talk) == len(URL)
