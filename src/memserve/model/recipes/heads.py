"""What the class named in `architectures` adds on top of the body: a vocabulary, a classifier, nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.model.recipes import pieces
from memserve.model.recipes.style import Style, on

if TYPE_CHECKING:
    from memserve.model.config import Config
    from memserve.model.recipes.anatomy import Anatomy

GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "ForImageTextToText")


def labels(config: Config) -> int:
    """Classes a classifier tells apart: `id2label`, else `num_labels`, else two."""
    names = config.given.get("id2label")
    if isinstance(names, dict):
        return len(names)
    return config.size("num_labels", 2)


def kind_of(architecture: str) -> str:
    """The part of a class name that says what it is for; empty for a bare body."""
    if architecture.endswith("LMHeadModel"):
        return "ForCausalLM"
    return architecture[architecture.rindex("For") :] if "For" in architecture else ""


def decoder_head(config: Config, body: Anatomy, architecture: str, style: Style, tied: bool) -> Anatomy:
    """The head of a decoder's class."""
    hidden = body.head_width or body.hidden
    kind = kind_of(architecture)
    if kind in GENERATIVE:
        bias = on(config, style.head_bias)
        return body.adding(top=pieces.head(body.vocabulary, hidden, tied=tied, bias=bias))
    if kind == "ForSequenceClassification":
        return body.adding(top=pieces.linear("score", labels(config), hidden, part="head"))
    if kind == "ForTokenClassification":
        return body.adding(top=pieces.linear("score", labels(config), hidden, bias=True, part="head"))
    if kind == "ForQuestionAnswering":
        return body.adding(top=pieces.linear("qa_outputs", 2, hidden, bias=True, part="head"))
    return body
