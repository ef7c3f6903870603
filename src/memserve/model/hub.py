"""config.json and tensor headers of a hub id: from the local cache, else through huggingface_hub."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import urlsplit

from memserve.errors import ConnectionFailed, ModelUnreadable, PermissionDenied, TimedOut, UnknownName

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

    from memserve.model.stored.headers import Tensor

T = TypeVar("T")
ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
KNOCK_SECONDS = 1.5
ANSWER_SECONDS = 5.0
LIMIT_SECONDS = 9.0
FILES = ("config.json", "hf_quant_config.json", "tokenizer_config.json")
HEADER_SECONDS = 30.0
LARGEST_SIDE = 1 << 40


def is_id(name: str) -> bool:
    """Whether a name can be a hub id: owner/name."""
    return bool(ID.match(name))


def _cache() -> Path:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub"))


def cached(name: str) -> Path | None:
    """The newest cached snapshot of a model that holds a config.json."""
    folder = _cache() / f"models--{name.replace('/', '--')}"
    main = folder / "refs" / "main"
    if main.is_file():
        snapshot = folder / "snapshots" / main.read_text(encoding="utf-8").strip()
        if (snapshot / "config.json").is_file():
            return snapshot
    found = [path.parent for path in folder.glob("snapshots/*/config.json")]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def available() -> bool:
    """Whether the hub may be asked at all."""
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    return not offline and find_spec("huggingface_hub") is not None


def endpoint() -> str:
    """Where the hub is asked."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _knock(endpoint: str) -> None:
    """Raise within a moment where nobody can answer: a name server that hangs would cost many seconds."""
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    reached: list[bool] = []

    def try_once() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), timeout=KNOCK_SECONDS).close()
        except OSError:
            return
        reached.append(True)

    thread = Thread(target=try_once, daemon=True)
    thread.start()
    thread.join(KNOCK_SECONDS)
    if not reached:
        raise ConnectionFailed(
            f"the hub at {endpoint} does not answer", hint="give a folder or a config.json"
        )


def fetched(name: str) -> Path:
    """The folder with a model's config.json, downloaded now."""
    asked = endpoint()
    if not any(os.environ.get(word) for word in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        _knock(asked)
    found = _download(name, FILES[0], asked)
    if isinstance(found, Exception):
        _translate(name, asked, found)
    for extra in FILES[1:]:
        _download(name, extra, asked)  # most models have no such file
    return found.parent


def _download(name: str, file: str, endpoint: str) -> Path | Exception:
    """One small file or what went wrong, within the limit: the library itself retries for a minute."""
    from huggingface_hub import hf_hub_download

    def work() -> Path:
        return Path(hf_hub_download(name, file, etag_timeout=ANSWER_SECONDS, endpoint=endpoint))

    return _within(LIMIT_SECONDS, work)


def _within(seconds: float, work: Callable[[], T]) -> T | Exception:
    """What the work gives, or raises, within so many seconds."""
    outcome: list[T | Exception] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # the library has its own tree, and its transport's below it
            outcome.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else TimeoutError(f"no answer in {seconds:.0f} s")


def headers(name: str) -> dict[str, Tensor]:
    """Names and shapes of a model's stored tensors, by range requests; empty where none are to be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import disable_progress_bars

    from memserve.model.stored.headers import Tensor

    disable_progress_bars()
    found = _within(HEADER_SECONDS, lambda: HfApi(endpoint=endpoint()).get_safetensors_metadata(name))
    if isinstance(found, Exception):
        return {}  # the config alone still gives an estimate
    tensors = {}
    for file in found.files_metadata.values():
        for tensor, about in file.tensors.items():
            if not all(isinstance(side, int) and 0 <= side <= LARGEST_SIDE for side in about.shape):
                return {}
            tensors[tensor] = Tensor(str(about.dtype), tuple(about.shape))
    return tensors


def quantized(name: str, most: int) -> list[ModelInfo]:
    """Repositories that are listed as quantized from a model, the most loaded first."""
    from huggingface_hub import HfApi

    asked, tag = endpoint(), f"base_model:quantized:{name}"
    found = _within(
        HEADER_SECONDS,
        lambda: list(HfApi(endpoint=asked).list_models(filter=tag, sort="downloads", limit=most)),
    )
    if isinstance(found, Exception):
        raise ConnectionFailed(
            f"the hub at {asked} does not list what is quantized from {name}: {type(found).__name__}"
        ) from found
    return found


def _translate(name: str, endpoint: str, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        raise PermissionDenied(
            f"the hub does not show {name!r} to you", status=status,
            hint="accept the model's licence on its page and set HF_TOKEN, or give a local folder",
        ) from error  # fmt: skip
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)) or status == 404:
        if isinstance(error, errors.EntryNotFoundError):
            raise ModelUnreadable(
                f"{name} on the hub holds no config.json", path=name, field="config.json"
            ) from error
        raise UnknownName(f"neither the catalogue nor the hub knows a model {name!r}") from error
    if "Timeout" in kind or "timed out" in str(error).lower():
        raise TimedOut(f"the hub at {endpoint} did not answer in {LIMIT_SECONDS:.0f} s") from error
    first = str(error).splitlines()[0][:160] if str(error) else kind
    raise ConnectionFailed(
        f"{name} could not be read from the hub at {endpoint}: {first}", status=status
    ) from error
