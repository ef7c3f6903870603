"""Chat templates as transformers compiles them, for engines that come without it."""

import ctypes
import json
import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

SECONDS = 10.0
"""That a template may take to write one conversation."""
_AGAIN = 0.05
"""Seconds after which it is told again: once may be lost in a callback of the garbage collector."""
_TRIES = 200
"""After which it is left alone: it is in something that only C sees."""
MOST = 1 << 24
"""Signs that an operator of a template may make at once."""


def limited(function: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What somebody else's code gives within some seconds.

    It works in a thread of its own, which is told to exit after that. What is told too late, or lost as
    CPython 3.11 loses it while another thread is told, thus changes nothing here.
    """
    found: list[tuple[Any, Exception | None]] = []

    def work() -> None:
        try:
            found.append((function(*given, **named), None))
        except SystemExit:
            return  # as told
        except Exception as error:
            found.append((None, error))

    thread = threading.Thread(target=work, name="memserve-template", daemon=True)
    thread.start()
    try:
        thread.join(SECONDS)
    finally:
        for _ in range(_TRIES):
            if not thread.is_alive():
                break
            told = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(*told)
            thread.join(_AGAIN)
    if not found:
        raise TimeoutError(f"it takes more than {SECONDS:g} s")
    value, error = found[0]
    if error is not None:
        raise error
    return value


def compiled(template: str) -> Any:
    """A chat template that has `render(messages=..., tools=..., add_generation_prompt=...)`."""
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what training learns from; here it is what stands in it."""

        tags = frozenset({"generation"})  # type: ignore[assignment,unused-ignore]

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    world = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation]
    )
    world.intercepted_binops = frozenset({"*", "**"})
    world.call_binop = _bounded  # type: ignore[assignment,method-assign]
    world.filters["tojson"] = _tojson
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return world.from_string(template)


def _bounded(_context: Any, operator: str, left: Any, right: Any) -> Any:
    """A product or a power that fits into memory."""
    if operator == "**":
        large = isinstance(right, int) and abs(right) > 1024
        return _refuse(f"a power of {right}") if large else left**right
    for one, times in ((left, right), (right, left)):
        if hasattr(one, "__len__") and isinstance(times, int) and len(one) * times > MOST:
            _refuse(f"a text of {len(one) * times} signs")
    return left * right


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:  # fmt: skip
    """Jinja's own would escape what HTML must not hold."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(words: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(words)
