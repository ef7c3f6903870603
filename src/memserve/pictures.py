"""Pictures in messages: parts `image_url` with a data URL, the one form for every engine, and decoded.

Data, bytes, PIL images and `pathlib.Path` are always read. A string may come out of a file or off a wire, so
one that names a file or an address needs consent.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import unquote

from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Prompt, Raw

SOURCES = ("data", "paths", "urls")
"""What strings may name, each with those before it."""
KINDS = frozenset({"image", "image_url", "input_image"})
MOST_BYTES = 64 << 20
MOST_PIXELS = 1 << 26
"""A few kilobytes can claim to be a picture of many gigabytes."""
FETCH_SECONDS = 30.0
FORMATS = {
    "PNG": rb"\x89PNG\r\n\x1a\n", "JPEG": rb"\xff\xd8\xff", "GIF": rb"GIF8", "WEBP": rb"RIFF....WEBP",
    "BMP": rb"BM", "TIFF": rb"II\*\x00|MM\x00\*",
}  # fmt: skip
"""How files begin. Pillow reads far more formats, some of them through programs of others."""
_DATA = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/]+={0,2}")
_LOSSLESS = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
"""Modes of PIL that a PNG file holds as they are."""


def settled(part: Mapping[str, Any], sources: str, *, remote: bool) -> dict[str, Any]:
    """The part as `image_url`; a remote engine fetches addresses itself."""
    kind = part["type"]
    source = part.get(kind if kind == "image" else "image_url", part.get("url", part.get("path")))
    about = dict(source) if isinstance(source, Mapping) else {"url": source}
    named = ("type", "image", "image_url", "url", "path")
    rest = {name: value for name, value in part.items() if name not in named}
    url = _address(about.get("url"), sources, remote)
    return {"type": "image_url", "image_url": {**about, "url": url}, **rest}


def wanted(word: object, *, remote: bool) -> str:
    """What `images_from` says; without it, files are read where their bytes stay here."""
    if word not in (*SOURCES, None):
        raise InvalidInput(f"images_from is one of {', '.join(SOURCES)}, not {word!r}")
    return str(word or ("data" if remote else "paths"))


def _address(source: Any, sources: str, remote: bool) -> str:
    if isinstance(source, str):
        return _of_text(source, sources, remote)
    if isinstance(source, os.PathLike):
        return _encoded(_file(Path(source)))
    if hasattr(source, "mode") and hasattr(source, "save"):
        source = _png(source)
    if not isinstance(source, (bytes, bytearray)):
        kind = type(source).__name__
        raise InvalidInput(f"an image is a data URL, a path, an address, bytes or a PIL image, not {kind}")
    return _encoded(bytes(source))


def _of_text(words: str, sources: str, remote: bool) -> str:
    if words.startswith("data:"):
        if len(words) > MOST_BYTES * 4 // 3 + 128 or not _DATA.fullmatch(words):
            raise InvalidInput("an image's data is data:image/TYPE;base64,..., at most 64 MiB of it")
        return words
    if words.startswith(("http://", "https://")):
        if remote:
            return words
        if sources != "urls":
            hint = "open the generator with images_from='urls'"
            raise InvalidInput("an image's address is not fetched unasked", hint=hint)
        return _encoded(_fetched(words))
    if sources == "data":
        hint = "pass pathlib.Path(...), or open the generator with images_from='paths'"
        raise InvalidInput(f"{words[:100]!r} would be read from this machine's disk", hint=hint)
    return _encoded(_file(Path(unquote(words[7:]) if words.startswith("file://") else words).expanduser()))


def _file(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode) or about.st_size > MOST_BYTES:
            raise OSError("it is no file of at most 64 MiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInput(f"the image {str(path)[:200]} cannot be read: {reason}") from error


def _fetched(url: str) -> bytes:
    from urllib.request import ProxyHandler, Request, build_opener

    from memserve.http.address import parse, proxy_for

    address, until = parse(url), monotonic() + FETCH_SECONDS
    proxy = proxy_for(address)
    opener = build_opener(ProxyHandler({"http": proxy, "https": proxy} if proxy else {}))
    found = b""
    try:
        with opener.open(Request(url, headers={"User-Agent": "memserve"}), timeout=FETCH_SECONDS) as answer:
            while len(found) <= MOST_BYTES and (more := answer.read1(1 << 20)):
                found += more
                if monotonic() > until:
                    raise TimeoutError(f"not there after {FETCH_SECONDS:.0f} s")
    except (OSError, ValueError) as error:
        raise InvalidInput(f"the image {address.shown[:200]} cannot be fetched: {error}") from error
    return found


def _png(picture: Any) -> bytes:
    """Upright: a PNG file would not tell how a photograph was held."""
    _bounded(picture)
    file = BytesIO()
    try:
        if getattr(picture, "getexif", dict)():
            from PIL import ImageOps

            picture = ImageOps.exif_transpose(picture)
        plain = picture if picture.mode in _LOSSLESS else picture.convert("RGB")
        plain.save(file, "PNG", compress_level=1)
    except Exception as error:  # of a file that is read only now, too
        raise InvalidInput(f"a picture cannot be read: {type(error).__name__}: {error}"[:200]) from error
    return file.getvalue()


def _encoded(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise InvalidInput("an image is larger than 64 MiB")
    starts = FORMATS.items()
    kind = next((name for name, start in starts if re.match(start, data[:16], re.DOTALL)), None)
    if kind is None:
        raise InvalidInput(f"an image is none that is known: {', '.join(FORMATS)} are")
    return f"data:image/{kind.lower()};base64,{b64encode(data).decode()}"


def _bounded(picture: Any) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        sides = f"{picture.width} x {picture.height}"
        raise InvalidInput(f"a picture of {sides} is larger than {MOST_PIXELS:,} pixels")


def addresses(prompt: Prompt) -> list[str]:
    """The addresses of a conversation's pictures, in their order."""
    if isinstance(prompt, (str, Raw)) or not prompt or isinstance(prompt[0], int):
        return []
    contents = [message.get("content") for message in prompt]  # type: ignore[union-attr]
    parts = [part for content in contents if not isinstance(content, (str, type(None))) for part in content]
    return [part["image_url"]["url"] for part in parts if part.get("type") == "image_url"]


def templated(content: Any, parted: bool, backend: str, marker: str | None = None) -> Any:
    """Content as a template reads it: a string, or parts where it wants `parted` text or shows pictures.

    Where the engine has a `marker` of its own, it stands for each picture, as text.
    """
    if content is None:
        return None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    kinds = {part.get("type") for part in parts}
    if unknown := kinds - {"text", "image_url"}:
        raise Unsupported(backend, f"a part of type {unknown.pop()!r}")
    if marker:
        parts = [part if part["type"] == "text" else {"type": "text", "text": marker} for part in parts]
    elif "image_url" in kinds:
        return [part if part["type"] == "text" else {"type": "image"} for part in parts]
    text = words([{"content": parts}])
    return [{"type": "text", "text": text}] if parted else text


def words(messages: Sequence[Mapping[str, Any]]) -> str:
    """What messages say beside their pictures."""
    contents = [message.get("content") or "" for message in messages]
    each = [[{"text": one}] if isinstance(one, str) else one for one in contents]
    return "".join(str(part.get("text", "")) for parts in each for part in parts)


def load(url: str) -> Any:
    """The picture of a data URL, as transformers' own reader would give it: upright, three colours."""
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise InvalidInput(
            "a picture needs Pillow, which is not installed", hint="pip install pillow"
        ) from error
    try:
        opened = Image.open(BytesIO(b64decode(url.partition(",")[2])), formats=tuple(FORMATS))
        _bounded(opened)
        return ImageOps.exif_transpose(opened).convert("RGB")
    except InvalidInput:
        raise
    except Exception as error:  # a damaged file raises whatever its format's reader trips over
        raise InvalidInput(f"a picture cannot be read: {type(error).__name__}: {error}"[:200]) from error
