"""What the class named in `architectures` adds on top of the body: a vocabulary, a classifier, nothing."""

from memserve.model.config import Config
from memserve.model.recipes import modules
from memserve.model.recipes.family import Family, on
from memserve.model.recipes.modules import Inventory

GENERATIVE = ("ForCausalLM", "ForConditionalGeneration", "ForImageTextToText")


def labels(config: Config) -> int:
    """Classes a classifier tells apart: `id2label`, else `num_labels`, else two."""
    names = config.given.get("id2label")
    if isinstance(names, dict):
        return len(names)
    return config.size("num_labels", 2)


def task_of(architecture: str) -> str:
    """The part of a class name that says what it is for; empty for a bare body."""
    if architecture.endswith("LMHeadModel"):
        return "ForCausalLM"
    return architecture[architecture.rindex("For") :] if "For" in architecture else ""


def with_head(config: Config, body: Inventory, architecture: str, family: Family | None = None) -> Inventory:
    """A decoder's body with what its class adds; a config that names no class means the generating one."""
    family = family or Family()
    hidden = body.head_width or body.hidden
    tied = family.ties and config.flag("tie_word_embeddings")
    kind = task_of(architecture or "ForCausalLM")
    if kind in GENERATIVE:
        bias = on(config, family.head_bias)
        return body.adding(top=modules.head(body.vocabulary, hidden, tied=tied, bias=bias))
    if kind == "ForSequenceClassification":
        return body.adding(top=modules.linear("score", labels(config), hidden, part="head"))
    if kind == "ForTokenClassification":
        return body.adding(top=modules.linear("score", labels(config), hidden, bias=True, part="head"))
    if kind == "ForQuestionAnswering":
        return body.adding(top=modules.linear("qa_outputs", 2, hidden, bias=True, part="head"))
    return body
