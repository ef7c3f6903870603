"""What every engine's launch shares: install lines, cards, option words, what a command leaves open."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from memserve.engines.deployment import Deployment
from memserve.engines.rules import NEWEST, version_key
from memserve.engines.rules.judge import release
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec

VISIBLE = {
    "nvidia": "CUDA_VISIBLE_DEVICES", "amd": "HIP_VISIBLE_DEVICES", "ascend": "ASCEND_RT_VISIBLE_DEVICES",
    "intel": "ZE_AFFINITY_MASK",
}  # fmt: skip


def install_line(rules: Mapping[str, Any], deployment: Deployment, card: Card) -> str:
    """The command that installs the planned release with its pins, as the release's row lists them."""
    row = release_on(rules, deployment, card)
    if "install" in row:
        return str(row["install"]).replace("{version}", deployment.engine_version)
    pin = pin_of(row, card)
    makers = {**row.get("quantized_by", {}), **pin.get("quantized_by", {})}
    extra = makers.get(deployment.quantization.split("-")[0], ())
    packages = (*_packages(row, deployment.engine_version), *pin.get("packages", ()), *extra)
    installer = row.get("installers", {}).get(card.vendor) or row.get("installer", "pip install")
    index = pin.get("index") or row.get("index", {}).get(card.vendor)
    tail = ("--extra-index-url", index) if index else ()
    return " ".join((installer, *(_quoted(package) for package in packages), *tail))


def release_on(rules: Mapping[str, Any], deployment: Deployment, card: Card) -> Mapping[str, Any]:
    """The release's row, with what its maker's `on` row says otherwise for this card."""
    row = release(rules, deployment.engine_version)
    return {**row, **row.get("on", {}).get(card.vendor, {})}


def _packages(row: Mapping[str, Any], version: str) -> tuple[str, ...]:
    """The release's packages; another version than the row's is asked for by its own number, without pins."""
    listed: tuple[str, ...] = tuple(row["packages"])
    if _is_row(row, version):
        return listed
    name, _, pinned = listed[0].partition("==") if listed else ("", "", "")
    return (f"{name}=={version.removeprefix('v')}",) if pinned == row["version"] else listed


def _is_row(row: Mapping[str, Any], version: str) -> bool:
    """Whether the row is of this very release, or of the newest where nobody can tell."""
    return bool(version == row["version"]) or version_key(version) == NEWEST


def pin_of(row: Mapping[str, Any], card: Card) -> Mapping[str, Any]:
    """The pins of a release that this card needs: the first that applies."""
    for pin in row.get("pins", ()):
        old = "below_sm" in pin and (card.sm is None or card.sm >= pin["below_sm"])
        if not old and pin.get("vendor", card.vendor) == card.vendor:
            found: Mapping[str, Any] = pin
            return found
    return {}


def requirements(rules: Mapping[str, Any], deployment: Deployment, card: Card) -> tuple[str, ...]:
    """What the install line cannot say: the Python it needs, the driver, what an old release loses."""
    row = release_on(rules, deployment, card)
    if not _is_row(row, deployment.engine_version):
        return ()
    python = f"needs Python {row['python_range']}" if row.get("python_range") else ""
    notes = (python, row.get("needs", ""), pin_of(row, card).get("note", ""), row.get("lost", ""))
    return tuple(note for note in notes if note)


def visible_cards(machine: Machine, taken: int) -> dict[str, str]:
    """The variable that keeps the engine on the planned cards, where it takes fewer than a node has."""
    name = VISIBLE.get(machine.card.vendor)
    if name is None or taken >= machine.cards_per_node:
        return {}
    return {name: ",".join(str(index) for index in range(taken))}


def spans_nodes(machine: Machine, deployment: Deployment) -> bool:
    """Whether one copy of the model needs more cards than a node has."""
    return deployment.layout.cards > machine.cards_per_node


def words(options: Mapping[str, object]) -> tuple[str, ...]:
    """Options as command-line words; None leaves one out, True is a bare flag."""
    said: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        said += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return tuple(said)


def options_of(command_words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The reverse: bare words, and options under the names that a call takes; a bare flag is True."""
    bare: list[str] = []
    options: dict[str, Any] = {}
    name = ""
    for word in command_words:
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            name = flag.replace("-", "_")
            options[name] = value if equals else True
            name = "" if equals else name
        elif name:
            options[name], name = word, ""
        else:
            bare.append(word)
    return tuple(bare), options


def _quoted(package: str) -> str:
    return f'"{package}"' if set("<>![") & set(package) else package


UNSTATED = 0
"""`Deployment.context` of a command that names none: the engine takes the model's own."""
UNBOUNDED = -1
"""The same for an engine that bounds no context: it is judged by the one that a plan would assume."""
LARGEST = -2
"""The same for an engine that takes the longest that fits."""
FALLBACK_CONTEXT = 8192
METHODS = (
    ("nvfp4", "nvfp4"), ("mxfp4", "mxfp4"), ("mxfp8", "mxfp8"), ("w4a8", "w4a8"), ("qoq", "w4a8"),
    ("modelslim", "w8a8"), ("ascend", "w8a8"), ("w8a8_fp8", "fp8"), ("w8a8", "w8a8"), ("w4a16", "w4a16"),
    ("bitsandbytes", "nf4"), ("bnb", "nf4"), ("nf4", "nf4"), ("llm_int8", "int8"), ("int8", "int8"),
    ("awq", "awq"), ("gptq", "gptq"), ("fp8", "fp8"), ("ptpc", "fp8"), ("gguf", "gguf-q4_k_m"),
    ("int4", "w4a16"), ("auto-round", "gptq"),
)  # fmt: skip
"""Words in an engine's own quantization names, the most telling first, and memserve's method."""


def method(word: str | None) -> str:
    """memserve's method for what an engine calls its quantization."""
    if word is None:
        return "none"
    plain = re.sub(r"[\s-]+", "_", word.lower())
    return next((known for part, known in METHODS if part in plain), "none")


def completed(deployment: Deployment, model: ModelSpec, asked: int | None = None) -> Deployment:
    """The deployment with the model's own context and storage where the command said nothing.

    `asked` is the context that the caller has in mind, where the command bounds none.
    """
    stored = model.quantization
    context = deployment.context
    if context == UNBOUNDED:
        context = asked or min(model.max_context or FALLBACK_CONTEXT, FALLBACK_CONTEXT)
    if context in (UNSTATED, LARGEST):
        context = model.max_context or FALLBACK_CONTEXT
    named = deployment.quantization
    quantization = stored.method if stored and not _one_of_its_files(stored.method, named) else named
    online = stored is None and deployment.quantization != "none"
    options = (*deployment.options, ("online", "true")) if online else deployment.options
    return replace(deployment, context=context, quantization=quantization, options=options)


def _one_of_its_files(stored: str, named: str) -> bool:
    """A GGUF repository holds a file for each level, of which the command names one."""
    return stored.startswith("gguf") and named.startswith("gguf")
