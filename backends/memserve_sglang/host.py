"""A process of its own for each `sglang.Engine`.

SGLang means to be alone: `shutdown` kills every child of its process, a crash of its scheduler kills the
process itself, and its settings are global. In a host of its own none of this reaches the caller. The two
talk over a pipe; when the caller ends, the pipe closes and the host ends.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from inspect import signature
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from weakref import finalize

from memserve.errors import EngineFailed, InvalidInput, MemserveError, ModelUnreadable
from memserve.options import named, value

SPELLINGS = {"max_model_len": "context_length", "tensor_parallel_size": "tp_size"}
ORIGINAL_LOGPROBS = {"SGLANG_RETURN_ORIGINAL_LOGPROB": "1"}
"""Log-probabilities are the model's own, whatever the temperature."""


def arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Server arguments of the installed SGLang from keywords or strings; unknown names are refused."""
    from sglang.srt.server_args import ServerArgs

    known = set(signature(ServerArgs).parameters)  # a dataclass before 0.5.20, a msgspec struct since
    found = named("sglang", options, known, spellings=SPELLINGS)
    return {name: value(word) for name, word in found.items()}


def start(model: str, options: Mapping[str, Any], **more: Any) -> Any:
    """A running `sglang.Engine`."""
    path = Path(model)
    if path.is_absolute() and not (path / "config.json").exists():
        raise ModelUnreadable(f"{model} has no config.json", path=str(path / "config.json"))
    asked = {"log_level": "error", **more, **arguments(options)}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name, text in ORIGINAL_LOGPROBS.items():
        os.environ.setdefault(name, text)
    import sglang

    try:
        return sglang.Engine(model_path=model, **asked)
    except (ValueError, OSError, RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise _plain(error, model) from error


def _plain(error: Exception, model: str) -> MemserveError:
    words = str(error).strip() or type(error).__name__
    first = next((line for line in words.splitlines() if line.strip()), words)[:400]
    if isinstance(error, TypeError):
        return InvalidInput(f"SGLang refuses its options: {first}")
    return EngineFailed(f"SGLang did not start with {model}: {first}")


_LAST = "last"
_STOP_SECONDS = 30.0
_LOOK_SECONDS = 1.0


class Host:
    """The caller's end. Calls are answered one after the other."""

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        ours, theirs = _pair()
        self._pipe = ours
        self._lock = threading.Lock()
        words = [sys.executable, "-m", "memserve_sglang.host", str(theirs.fileno())]
        self._child = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL
        )
        theirs.close()
        self._end = finalize(self, _end, self._pipe, self._child)
        try:
            self.facts: dict[str, Any] = self.call("start", model=model, options=dict(options))
        except BaseException:
            self.close()
            raise

    def call(self, verb: str, **words: Any) -> Any:
        """Ask and wait for the one answer."""
        with self._lock:
            self._say((verb, words))
            return self._hear()[1]

    def stream(self, **words: Any) -> Iterator[Any]:
        """Ask for pieces; leaving early makes the host drop the rest."""
        with self._lock:
            self._say(("stream", words))
            more = True
            try:
                while more:
                    tag, piece = self._hear()
                    more = tag != _LAST
                    if more:
                        yield piece
            finally:
                while more:
                    more = self._hear()[0] != _LAST

    def close(self) -> None:
        """End the host and all its children; twice is once."""
        self._end()

    def _say(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._died() from error
        except (OSError, ValueError) as error:
            raise EngineFailed("SGLang's process has ended", hint="its own output says why") from error

    def _hear(self) -> tuple[str, Any]:
        try:
            tag, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if isinstance(value, Exception):
            raise value
        return tag, value

    def _died(self) -> EngineFailed:
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_STOP_SECONDS)
        words = "SGLang's process died while it worked"
        if self._child.returncode == -signal.SIGKILL:
            return EngineFailed(f"{words}, killed by the system", hint="most often main memory ran out")
        return EngineFailed(words, hint="its own output says why")


def _pair() -> tuple[Connection, Connection]:
    import socket

    ours, theirs = socket.socketpair()
    return Connection(ours.detach()), Connection(theirs.detach())


def _end(pipe: Connection, child: subprocess.Popen[bytes]) -> None:
    with suppress(OSError, ValueError):
        pipe.send(("stop", {}))
    pipe.close()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class _Desk:
    """The host's end: one engine, one question at a time."""

    def __init__(self) -> None:
        self._engine: Any = None

    def start(self, model: str, options: dict[str, Any]) -> dict[str, Any]:
        """Start the engine and tell what the caller must know of it."""
        import sglang

        self._engine = start(model, options)
        config, args = self._engine.tokenizer_manager.model_config, self._engine.server_args
        exact = "float32" in str(config.dtype) or bool(args.enable_deterministic_inference)
        return {
            "version": sglang.__version__, "dtype": str(config.dtype), "context": _room(self._engine),
            "vocabulary": config.vocab_size, "device": args.device, "exact": exact,
            "seed": bool(args.enable_deterministic_inference), "tokenizer": args.tokenizer_path or model,
            "trust_remote_code": bool(args.trust_remote_code),
        }  # fmt: skip

    def generate(self, **words: Any) -> Any:
        """`Engine.generate` for a list."""
        return list(self._engine.generate(**words))

    def encode(self, texts: list[str]) -> Any:
        """`Engine.encode` for a list."""
        return list(self._engine.encode(texts))

    def stream(self, **words: Any) -> Iterator[Any]:
        """`Engine.generate` for one prompt, in pieces."""
        yield from self._engine.generate(stream=True, **words)


def _room(engine: Any) -> int:
    """Tokens of prompt and answer: SGLang keeps a few of the context, or has a smaller pool, and says so."""
    manager = engine.tokenizer_manager
    longest = getattr(manager, "max_req_input_len", None)
    return int(longest) + 1 if longest else int(manager.model_config.context_len)


def _answer(desk: _Desk, pipe: Connection, verb: str, words: dict[str, Any]) -> None:
    try:
        if verb == "stream":
            for piece in desk.stream(**words):
                pipe.send(("piece", piece))
            pipe.send((_LAST, None))
        else:
            pipe.send((_LAST, getattr(desk, verb)(**words)))
    except MemserveError as error:
        pipe.send((_LAST, error))
    except Exception as error:
        pipe.send((_LAST, EngineFailed(f"SGLang: {type(error).__name__}: {str(error)[:400]}")))


def _end_with(caller: int) -> None:
    """A host that works hears nothing of its pipe: it asks whose child it is."""
    while os.getppid() == caller:
        time.sleep(_LOOK_SECONDS)
    os.killpg(0, signal.SIGKILL)


def main(number: int) -> None:
    """Answer until told to stop or until the caller is gone, then take every child along."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    pipe, desk = Connection(number), _Desk()
    with suppress(EOFError, OSError):
        while True:
            verb, words = pipe.recv()
            if verb == "stop":
                break
            _answer(desk, pipe, verb, words)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
