"""The command line: its words, and what answers each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, cast

from memserve.cli import Parser, amount, count
from memserve.errors import InvalidInput
from memserve.plan.answer import Answer
from memserve.plan.page import show
from memserve.plan.query import JOB, PlanOptions

if TYPE_CHECKING:
    import argparse
    from argparse import Namespace

ASKED = ("context", "concurrency", "backend", "engine_version", "quantization", "tp", "pp", "dp", "kv_dtype",
         "objective", "trust_remote_code", "workload", "deadline", "budget", "rpm", "tpm",
         "headroom", "batch", "ttft", "tpot", "like",
         "offload")  # fmt: skip
"""Options that become a `PlanOptions`, under the same names."""

OTHERS = ("model", "check", "calibrate", "calibrations", "forget", "compare", "page")
"""One of these a call needs."""
_COUNTED = re.compile(r"\d+\s*[xX×*]\s*\w")
"""`4xV999`: a machine, and its card is unknown."""


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of one call; a machine may stand behind MODEL without --gpus."""
    made = parser()
    options, extra = made.parse_known_args(words)
    if len(extra) == 1 and options.gpus is None and _is_machine(extra[0]):
        options.gpus, extra = extra[0], []
    if extra:
        made.refuse(extra)
    if options.model is None and options.verify:
        options.model, options.verify = options.verify, ""
    if options.model is None and options.train:
        options.model = _last(options.train)
    if all(getattr(options, name) is None for name in OTHERS):
        hint = f"memserve models --gpus {options.gpus or '1xRTX3060'} lists those that fit"
        raise InvalidInput("no model named: memserve plan llama-70b --gpus 4xV100", hint=hint)
    return options


def _is_machine(word: str) -> bool:
    from memserve.hardware import parse as machine

    if word.lower() == "any" or _COUNTED.match(word):
        return True
    try:
        return bool(machine(word))
    except InvalidInput:
        return False


def _last(words: list[str]) -> str | None:
    """MODEL behind `--train qlora batch=4`, which takes it for a word of its own."""
    from memserve.plan.tasks.training import METHODS, WORDS

    named = "=" in words[-1] or words[-1].replace("-", "_") in (*METHODS, *WORDS)
    return None if named else words.pop()


def asked(options: argparse.Namespace) -> PlanOptions:
    """What the options ask of the planner, as the library takes it."""
    return cast("PlanOptions", {name: getattr(options, name, None) for name in ASKED})


def any_machine(options: argparse.Namespace) -> bool:
    """Whether --gpus leaves the machine open."""
    return (options.gpus or "").strip().lower() == "any"


def parser() -> Parser:
    """Every option that the planner knows."""
    made = Parser(
        "plan", "What to run on the cards at hand: engine, release, quantization, layout, command.",
        epilog="exit codes: 0 a plan fits; 1 nothing does, the closest miss is shown; 2 malformed call",
    )  # fmt: skip
    made.add_argument("model", nargs="?", metavar="MODEL", help="a name, hub id, folder or config.json")
    made.add_argument(
        "--gpus", metavar="SPEC", help="4xV100, 2x8xH100, 8x910B4@12.5 ($/h), p4d.24xlarge, cpu, any"
    )
    made.add_argument("--like", metavar="KNOWN", help="plan MODEL, which nobody knows, by this one's shapes")
    wanted(made)
    _shown(made)
    _other(made)
    return made


def wanted(made: Parser) -> None:
    """The options that become the query."""
    add = made.add_argument_group("what is wanted").add_argument
    add("--context", type=count, metavar="N", help="tokens of one request, prompt and answer")
    add("--concurrency", type=count, metavar="N", help="requests of that context at once")
    add("--backend", metavar="B", help="vllm, ascend, sglang, hf, lmdeploy, llamacpp, mindie, openai, ...")
    add("--engine-version", metavar="V", help="the engine's release")
    add("--quantization", metavar="Q", help="none, gptq, awq, nf4, int8, fp8, w8a8, gguf-q4_k_m, ...")
    add("--tp", type=count, metavar="N", help="cards that share every layer")
    add("--pp", type=count, metavar="N", help="groups of layers")
    add("--dp", type=count, metavar="N", help="copies of the model")
    add("--kv-dtype", metavar="D", help="auto, fp8, ...")
    add("--workload", metavar="W", help="longmemeval-s, locomo, IN:OUT:N or a .jsonl file of requests")
    add("--deadline", metavar="T", help="with --workload: 12h, 90m, 3d, 'tomorrow 9:00'")
    add("--budget", type=amount, metavar="USD", help="with --workload: dollars")
    add("--headroom", metavar="SHARE", help="what of each card stays free: 10%%")
    add("--rpm", type=amount, metavar="N", help="with --workload: requests a minute that a provider takes")
    add("--tpm", type=amount, metavar="N", help="with --workload: tokens a minute that a provider takes")
    add("--offload", action="store_true", default=None,
        help="layers that the cards do not hold may stay with the processor")  # fmt: skip
    add("--batch", action="store_true", default=None, help="with --workload: the provider's batch prices")
    add("--ttft", type=amount, metavar="MS", help="milliseconds that the first token may take")
    add("--tpot", type=amount, metavar="MS", help="milliseconds that each further token may take")
    add("--objective", metavar="O", help="quality (the default), throughput, latency or cost")
    add("--trust-remote-code", action="store_true", default=None,
        help="consent to code from the model's repository, where an engine needs it")  # fmt: skip


def _shown(made: Parser) -> None:
    add = made.add_argument_group("what is shown").add_argument
    add("--all", action="store_true", help="every candidate that fits")
    add("--why", action="store_true", help="every rejection with its rule and source")
    add("--json", action="store_true", help="one JSON object")
    add(
        "--emit",
        metavar="FORMAT",
        help="the file that starts the plan: compose, slurm, kuberay, kubernetes[-keda]",
    )
    add("--bind", default="127.0.0.1", metavar="ADDRESS", help="with --emit: where the server listens")
    add("--page", metavar="FOLDER", help="write the planner as a page that runs in a browser")
    add("--plot", metavar="FILE", help="draw memory and KV capacity into a .png or .svg")


def _other(made: Parser) -> None:
    add = made.add_argument_group("other questions").add_argument
    add("--check", metavar="COMMAND", help="judge a vllm or sglang command line")
    add("--memory", type=amount, metavar="GIB", help="with --check: what the engine sees of a card")
    add("--embedder", metavar="MODEL", help="plan an embedder beside the generator")
    add("--beside", metavar="MODEL", help="a second generator on the other half of the cards")
    add("--train", nargs="*", metavar="WORD", help="full, lora or qlora, and batch=4 sequence=2048 ...")
    add("--compare", nargs="+", metavar="SPEC", help="with --workload: 4xV100 1xH100 openai:gpt-4o-mini")
    add("--calibrate", metavar="FILE", help="learn this machine's constants: a start-up log, bench.json")
    add("--calibrations", action="store_true", default=None, help="list what was learnt")
    add("--forget", metavar="N", help="forget one of them by its number, or all")
    add("--verify", nargs="?", const="", metavar="FILE",
        help="start the plan, measure it beside what is predicted; FILE: as a row of truth")  # fmt: skip
    add("--python", metavar="PATH", help="with --verify: the interpreter of the engine's environment")


TASKS = {
    "page": "browser", "beside": "beside", "emit": "emitting", "compare": "comparing",
    "calibrate": "calibrating", "calibrations": "calibrating", "forget": "calibrating", "check": "",
    "train": "training", "verify": "verifying", "embedder": "pair", "any": "anywhere",
}  # fmt: skip
"""The option that asks for each task, the first that is given wins, and the module that answers it."""
_PLANNED = ("model", "gpus", *ASKED)
TAKES: dict[str, tuple[str, ...]] = {
    "": (*_PLANNED, "all", "why", "json", "plot"), "page": (),
    "beside": (*_PLANNED, "emit", "bind", "why", "json"), "emit": (*_PLANNED, "bind", "all", "json"),
    "compare": (*_PLANNED, "plot", "json"), "calibrate": ("model", "gpus", "json"),
    "calibrations": ("forget", "json"), "forget": ("json",),
    "check": ("gpus", "memory", "engine_version", "context", "concurrency", "workload", "deadline", "budget",
              "headroom", "ttft", "tpot", "why", "json", "plot"),
    "train": ("model", "gpus", "any", "like", "json"),
    "verify": (*(one for one in _PLANNED if one not in JOB[1:]), "python", "why", "json"),
    "embedder": (*_PLANNED, "why", "json"), "any": (*_PLANNED, "json"),
}  # fmt: skip
"""What each task heeds besides the option that asks for it; whatever else is given is refused."""
_DOES = {
    "": "--memory goes with --check, --python with --verify, --bind with --emit",
    "emit": "--emit writes the file of one plan",
    "check": "--check judges the command as it stands", "any": "--gpus any shows one row a card",
    "train": "--train heeds its own words alone (sequence=2048, batch=4, ...)",
}  # fmt: skip


def run(words: Sequence[str] | None = None) -> int:
    """Answer one call on stdout; 0 if a plan fits, 1 if none does."""
    options = parse(words)
    asked = {**vars(options), "any": any_machine(options) or None}
    name = next((name for name in TASKS if asked[name] is not None), "")
    heeded(name, options)
    if name and TASKS[name]:
        return int(import_module(f"memserve.plan.tasks.{TASKS[name]}").run(options))
    found = check(options) if name == "check" else plan(options)
    if options.plot is not None:
        from memserve.plan.plot import draw

        draw(found, options.plot)
    return show(found, options)


def heeded(name: str, options: Namespace) -> None:
    """Refuses what was given and the task does not heed: nothing is dropped silently."""
    made, takes = parser(), {name, *TAKES[name]}
    left = [one for one, value in vars(options).items()
            if value not in (None, False, made.get_default(one)) and one not in takes]  # fmt: skip
    said = ["MODEL" if one == "model" else f"--{one.replace('_', '-')}" for one in left]
    if any_machine(options) and "any" not in takes and "gpus" in takes:
        said.append("--gpus any")
    if said:
        raise InvalidInput(f"{_DOES.get(name, f'not with --{name}')}: leave {', '.join(said)} out")


def plan(options: Namespace) -> Answer:
    """The plan for a model on a machine."""
    from memserve.plan.library import answered
    from memserve.plan.query import Query

    query = Query.of(**asked(options))
    return answered(options.model, options.gpus, query, everything=options.all)


def check(options: Namespace) -> Answer:
    """The verdict on a command that one already has, and on what is asked of it."""
    from memserve.plan.answer import checked
    from memserve.plan.checking import check as judged
    from memserve.plan.query import Query

    wanted = asked(options)
    wanted["engine_version"] = None  # a check reads any word as some release
    query = Query.of(**wanted)
    plan = judged(
        options.check, options.gpus, engine_version=options.engine_version,
        memory_gib_per_card=options.memory, context=options.context, concurrency=options.concurrency,
    )  # fmt: skip
    return checked(plan, query)
