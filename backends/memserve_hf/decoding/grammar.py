"""JSON schemas, regular expressions and choices as masks on the next token, through xgrammar."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from memserve.errors import InvalidInput
from memserve.missing import missing, need
from memserve.protocol import Request
from memserve.tokens.grammar import structural_tag
from memserve.tokens.prompts import Prepared

if TYPE_CHECKING:
    from torch import Tensor


def available() -> bool:
    """Is the library that constrains answers installed? Imports nothing."""
    return find_spec("xgrammar") is not None


class Grammars:
    """Compiles and keeps grammars for one tokenizer."""

    def __init__(self, tokenizer: Any, *, vocabulary: int, ends: frozenset[int]) -> None:
        self._tokenizer, self._vocabulary, self._ends = tokenizer, vocabulary, ends
        self._compiler: Any = None
        self._compiled = lru_cache(maxsize=64)(self._compile)

    def of(self, request: Request, prepared: Prepared) -> Grammar | None:
        """The grammar that a request's answer must follow, or None."""
        calling = prepared.calling
        if calling is not None and (calling.forced or available()):
            tag = structural_tag(request, prepared, thought=False)
            return self._compiled("tools", json.dumps(tag)) if tag else None
        if request.schema is not None:
            return self._compiled("schema", json.dumps(dict(request.schema)))
        if request.regex is not None:
            return self._compiled("regex", request.regex)
        if request.choices is not None:
            return self._compiled("choices", json.dumps(list(request.choices)))
        return None

    def _compile(self, kind: str, source: str) -> Grammar:
        if not available():
            raise missing("hf", "xgrammar")
        xgrammar = need("hf", "xgrammar")
        compiler = self._ready(xgrammar)
        try:
            if kind == "schema":
                # free whitespace lets a small model emit it for ever
                compiled = compiler.compile_json_schema(source, any_whitespace=False)
            elif kind == "tools":
                compiled = compiler.compile_structural_tag(source)
            elif kind == "regex":
                compiled = compiler.compile_regex(source)
            else:
                compiled = compiler.compile_grammar(_alternatives(json.loads(source)))
        except (RuntimeError, ValueError) as error:
            raise InvalidInput(f"{kind} cannot be enforced: {str(error).splitlines()[-1]}") from error
        return Grammar(compiled, self._vocabulary, self._ends)

    def _ready(self, xgrammar: Any) -> Any:
        if self._compiler is None:
            info = xgrammar.TokenizerInfo.from_huggingface(
                self._tokenizer, vocab_size=self._vocabulary, stop_token_ids=sorted(self._ends)
            )
            self._compiler = xgrammar.GrammarCompiler(info)
        return self._compiler


class Grammar:
    """One compiled grammar, shared by all answers that follow it."""

    def __init__(self, compiled: Any, vocabulary: int, ends: frozenset[int]) -> None:
        self._compiled, self._vocabulary, self._ends = compiled, vocabulary, ends

    def matcher(self) -> Matcher:
        """A fresh state, for one answer."""
        xgrammar = need("hf", "xgrammar")
        bitmask = xgrammar.allocate_token_bitmask(1, self._vocabulary)
        return Matcher(xgrammar, xgrammar.GrammarMatcher(self._compiled), bitmask)


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, xgrammar: Any, state: Any, bitmask: Tensor) -> None:
        self._xgrammar, self._state, self._bitmask = xgrammar, state, bitmask

    def mask(self, logits: Tensor) -> None:
        """Forbid, in place, every token that the grammar does not allow next."""
        self._state.fill_next_token_bitmask(self._bitmask)
        self._xgrammar.apply_token_bitmask_inplace(logits[None], self._bitmask.to(logits.device))

    def accept(self, token: int) -> None:
        """Move on by one token."""
        self._state.accept_token(token)


def _alternatives(choices: list[str]) -> str:
    return "root ::= " + " | ".join(json.dumps(choice) for choice in choices)
