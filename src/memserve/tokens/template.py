"""Chat templates as transformers compiles them, for engines that come without it."""

import json
from datetime import datetime
from typing import Any


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
    world.filters["tojson"] = _tojson
    world.globals["raise_exception"] = _refuse
    world.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return world.from_string(template)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None,
            separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:  # fmt: skip
    """Jinja's own would escape what HTML must not hold."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(words: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(words)
