"""Judges a command that one already has: would this engine start, on these cards, and with what memory?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from memserve.engines import container, installed
from memserve.engines.backend import server_of
from memserve.engines.command import masked, shown, taken_apart
from memserve.engines.deployment import Deployment
from memserve.engines.flags import UNKNOWN, FlagTable, NotCounted, flags_of
from memserve.engines.install import LARGEST, VISIBLE, completed, method
from memserve.engines.launch import Launch
from memserve.engines.memory import assumptions
from memserve.engines.rules.judge import Judge, drives, offered
from memserve.errors import InvalidInput, MemserveError, UnknownName
from memserve.hardware.machine import GIB, Machine
from memserve.memory import formats
from memserve.model.spec import ModelSpec, Quantization
from memserve.plan.candidate import KV, Checkpoint, Verdict
from memserve.plan.plan import Plan
from memserve.plan.query import Query

NEWEST = "newest"
AMPERE = 80


def check(command: str | Sequence[str], gpus: str | Machine | None = None, *,
          engine_version: str | None = None, memory_gib_per_card: float | None = None,
          context: int | str | None = None, concurrency: int | str | None = None) -> Plan:  # fmt: skip
    """The verdict on a launch command, with its memory even where it does not fit.

    `context` and `concurrency` say what is meant to run there, for engines whose commands bound neither.
    Raises only where the command, the machine or the model cannot be read.
    """
    from memserve.plan.search.judging import assess, learnt_here

    machine, wanted = _machine(gpus, memory_gib_per_card), Query.of(context=context, concurrency=concurrency)
    started = container.opened(*taken_apart(command))
    words, variables = masked(started.words, started.variables)  # what no reader sees, no error tells
    name, asked = _asked(words, machine)
    asked = replace(asked, engine_version=engine_version or started.release or _latest(asked.backend))
    model = _named(name)
    not_counted = (*_not_counted(asked, machine), *_not_known(asked, model))
    asked = replace(asked, concurrency=wanted.concurrency, env=tuple(variables.items()), image=started.image)
    asked = _over_layers(asked, machine, variables)
    deployment = _settled(asked, model, machine, wanted.context)
    if model.quantization and model.quantization.method != deployment.quantization:
        model = replace(model, quantization=_other_file(deployment.quantization))
    backend = installed.named(deployment.backend)
    if not_counted:  # what a plan writes is known
        own = _flags(backend.launch.launch(model, name, machine, deployment).command)
        not_counted = tuple(one for one in not_counted if own.get(f"--{one.name}") != asked.option(one.name))
    verdict = assess(backend, model, machine, deployment)
    verdict = _lacking(asked, verdict, model) or verdict
    assumed = (*assumptions(backend.memory, model, machine, deployment),
               *learnt_here(model, machine, deployment))  # fmt: skip
    deployment = replace(deployment, dtype=computed_in(deployment.dtype, model, machine))
    told = tuple(filter(None, (verdict.reason, _short(verdict, deployment), *model.notes)))
    return Plan(
        model=model, machine=machine, deployment=deployment, verdict=verdict,
        checkpoint=Checkpoint(name, deployment.quantization, online=bool(deployment.option("online"))),
        launch=Launch("", words, variables), assumed=assumed, not_counted=not_counted,
        reasons=(*told, *machine.notes) if verdict.fits else told,
    )  # fmt: skip


def read_by(backend: str, command: Sequence[str], version: str | None = None) -> None:
    """Raises what the engine's own parser would not take: flags that none, or not this release, has."""
    found = installed.named(backend).launch.parse(masked(command, {})[0])
    table = flags_of(installed.named(backend))
    if found and table and version:
        asked = replace(found[1], engine_version=version)
        if told := "; ".join(_not_taken(table, asked)):
            raise InvalidInput(told)


def _short(verdict: Verdict, deployment: Deployment) -> str:
    """What an engine that starts nonetheless does not hold: one request of the full context."""
    held = verdict.footprint
    if not verdict.fits or held is None or not held.kv_tokens or held.max_concurrency >= 1:
        return ""
    return (f"it starts, but a request of the full context of {deployment.context:,} tokens does not fit: "
            f"the KV cache has {held.kv_tokens:,}")  # fmt: skip


def cures(plan: Plan, launched: Sequence[str]) -> Iterator[str]:
    """Changes of the command, one at a time, with which it starts; `launched` is how memserve writes it."""
    from memserve.plan.search.judging import held

    backend, before = installed.named(plan.backend), _flags(launched)
    for form in _forms(plan) if alike(plan, launched) and plan.rule != "flag" else ():
        judge = Judge(backend.rules, form.engine_version, plan.model, plan.machine)
        if judge(form) is None and held(backend, plan.model, plan.machine, form).fits:
            after = _flags(backend.launch.launch(plan.model, plan.checkpoint.id, plan.machine, form).command)
            changed = [
                f"{name} {value}".strip() for name, value in after.items() if before.get(name) != value
            ]
            if form.engine_version != plan.engine_version:
                changed.insert(0, f"--engine-version {form.engine_version}")
            if changed:
                yield f"{' '.join(changed)}: it runs"


def alike(plan: Plan, launched: Sequence[str]) -> bool:
    """Whether both commands start the same program."""
    server = server_of(installed.named(plan.backend))
    return server is not None and server.started_by(launched) is server.started_by(plan.command)


AWAY = ("n-gpu-layers", "n-cpu-moe", "cpu-moe", "override-tensor")
"""Options that say what stays on the host."""


def _forms(plan: Plan) -> Iterator[Deployment]:
    """What a command's author would try: a shorter context, another cache, more cards, another release."""
    backend, asked, card = installed.named(plan.backend), plan.deployment, plan.machine.card
    rules, layout = backend.rules, plan.deployment.layout
    largest = backend.memory.largest_context(plan.model, plan.machine, asked)
    if 0 < largest < asked.context:
        yield replace(asked, context=largest)
    narrow = next((word for word in rules.get("kv_dtypes", ()) if KV.get(word) == 1), None)
    if narrow and asked.kv_dtype == "auto":
        yield replace(asked, kv_dtype=narrow)
    for tensor in (2 * layout.tensor, 4 * layout.tensor) if rules["serves"].get("tensor_parallel") else ():
        yield replace(asked, layout=replace(layout, tensor=tensor))
    if card.vendor in rules["serves"].get("host_layers", ()):
        from memserve.plan.search.judging import offloaded

        rest = tuple(pair for pair in asked.options if pair[0] not in AWAY)
        yield offloaded(backend, plan.model, plan.machine, replace(asked, options=rest))[0]
    for row in offered(rules):
        yield replace(asked, engine_version=str(row["version"]))


def _flags(words: Sequence[str]) -> dict[str, str]:
    """Values by flag, as a command writes them."""
    found, name = dict[str, str](), ""
    for word in words:
        if word.startswith("--"):
            name, found[word] = word, ""
        elif name:
            found[name], name = word, ""
    return found


def _asked(words: tuple[str, ...], machine: Machine) -> tuple[str, Deployment]:
    """What the command starts: of two engines that it starts, the one that drives these cards."""
    read = []
    for backend in installed.plannable():
        found = installed.named(backend).launch.parse(words)
        if found is not None:
            read.append((found[0], replace(found[1], backend=backend)))
    if not read:
        raise InvalidInput(
            f"not a command that memserve can read: {shown(words[:3])[:36]!r}",
            hint=f"known, in docker run, too: {_starts()}",
        )
    return next((one for one in read if drives(installed.named(one[1].backend).rules, machine)), read[0])


def _other_file(level: str) -> Quantization | None:
    """What the file holds that a command names, where its repository has several."""
    usual = formats.named(level) if level.startswith("gguf") else None
    return Quantization(level, level, usual.bits) if usual else None


def _over_layers(asked: Deployment, machine: Machine, variables: Mapping[str, str]) -> Deployment:
    """An engine that spreads layers takes all cards that it sees."""
    if not installed.named(asked.backend).rules.get("serves", {}).get("layers_over_cards"):
        return asked
    seen = variables.get(VISIBLE.get(machine.card.vendor, ""))
    cards = len(seen.split(",")) if seen else machine.cards_per_node
    return replace(asked, layout=replace(asked.layout, pipeline=cards))


def _not_counted(asked: Deployment, machine: Machine) -> Iterator[NotCounted]:
    """The command's flags whose bytes nobody adds up; all that a backend without a table keeps."""
    table = flags_of(installed.named(asked.backend))
    for name, value in asked.options:
        if table is None:
            yield NotCounted(name, UNKNOWN)
        elif _lacks(table, name, asked):
            continue
        elif value != machine.card.vendor and (reason := table.left_out(name.partition(".")[0], value)):
            yield NotCounted(name, reason)


def _lacks(table: FlagTable, name: str, asked: Deployment) -> str:
    """Why this release refuses the flag; empty where it has it, or none ever had."""
    bare = name.partition(".")[0]
    return table.lacking(bare, asked.engine_version) if bare in table.names else ""


def _not_taken(table: FlagTable, asked: Deployment) -> Iterator[str]:
    """Flags that this release does not have, or not without another."""
    yield from filter(None, (_lacks(table, name, asked) for name, _ in asked.options))
    yield from table.alone(dict(asked.options), asked.engine_version)


def _lacking(asked: Deployment, verdict: Verdict, model: ModelSpec) -> Verdict | None:
    """The refusal of such flags."""
    table = flags_of(installed.named(asked.backend))
    told = "; ".join((*_not_taken(table, asked), *_misnamed(asked, model))) if table else ""
    if table is None or not told:
        return None
    return replace(verdict, outcome="refused", rule="flag", reason=told, source=table.source)


METHOD = ("quantization", "model-format")
"""Options that name how the weights are held."""
OWN = ("awq", "gptq", "compressed-tensors")
"""Parts of methods that no engine makes of 16-bit weights while loading: their checkpoints name them."""
APART = ("awq", "gptq", "fp8")
"""Methods of which none reads another's checkpoints."""


def _misnamed(asked: Deployment, model: ModelSpec) -> Iterator[str]:
    """A method that is not the checkpoint's: engines compare it with what its config says."""
    for name, word in asked.options if not model.levels else ():
        said, stored = word.lower().replace("_", "-"), model.quantization
        if name not in METHOD:
            continue
        listed = model.source.startswith("catalogue")  # a folder may say it in a file of its own
        if stored is None and listed and any(part in said for part in OWN):
            yield f"--{name} {word[:30]}: {model.id} is not quantized: name a checkpoint that is"
        kind = next((part for part in APART if part in said), stored and stored.method)
        if stored and stored.method in APART and kind != stored.method:
            yield f"--{name} {word[:30]}: {model.id} is stored as {stored.method}"


def _not_known(asked: Deployment, model: ModelSpec) -> Iterator[NotCounted]:
    """A method of which memserve does not know what it makes of 16-bit weights."""
    words = [(name, word) for name, word in asked.options if name in METHOD and model.quantization is None]
    for name, word in words:
        if method(word) == "none" and word.lower() not in ("none", "null", "auto"):
            yield NotCounted(name, f"memserve does not know what {word[:30]!r} makes of the weights")


def _named(name: str) -> ModelSpec:
    """The model of a command: a path that is on another machine, or in a container, by its last name."""
    from memserve.model import load

    last = name.rstrip("/").rpartition("/")[2]
    try:
        return load(name)
    except UnknownName:
        if last in ("", name) or not name.startswith(("/", "~", ".")):
            raise
    try:
        found = load(last)
    except MemserveError:
        raise UnknownName(f"no such file or folder: {name[:80]!r}", hint=ELSEWHERE) from None
    note = f"shapes of {found.id}, by the folder's name: it is not here"
    return replace(found, id=name, notes=(*found.notes[1:], note))


ELSEWHERE = "or name the model: memserve models"


def _settled(asked: Deployment, model: ModelSpec, machine: Machine, context: int | None) -> Deployment:
    """The command's deployment on this machine, with nothing left open."""
    backend = installed.named(asked.backend)
    deployment = completed(asked, model, context)
    if asked.context != LARGEST:
        return deployment
    largest = backend.memory.largest_context(model, machine, deployment)
    return replace(deployment, context=largest or deployment.context)


def computed_in(dtype: str, model: ModelSpec, machine: Machine) -> str:
    """The dtype that an engine makes of `auto`: the checkpoint's, but no bfloat16 on a card without it."""
    if dtype not in ("auto", ""):
        return "float16" if dtype == "half" else dtype
    sm = machine.card.sm
    return "bfloat16" if model.dtype == "bfloat16" and (sm is None or sm >= AMPERE) else "float16"


def _machine(gpus: str | Machine | None, memory_gib: float | None) -> Machine:
    from memserve.hardware import detect, parse

    if isinstance(gpus, str) and gpus.strip().lower() == "any":
        raise InvalidInput("a command is judged on one machine: name it, as --gpus 4xV100")
    machine = detect() if gpus is None else parse(gpus) if isinstance(gpus, str) else gpus
    if memory_gib is None:
        return machine
    if not isinstance(memory_gib, int | float) or not 0 < memory_gib < 100_000:
        raise InvalidInput(f"memory_gib_per_card must be a positive number of GiB, not {memory_gib}")
    return replace(machine, card=replace(machine.card, memory=round(memory_gib * GIB)))


def _starts() -> str:
    """How the commands begin that can be read, in a line of any number of engines."""
    from textwrap import shorten

    servers = (server_of(installed.named(name)) for name in installed.plannable())
    programs = (one for server in servers if server for one in server.programs)
    return shorten(
        ", ".join(dict.fromkeys(" ".join(one.starts[0]) for one in programs)),
        192,
        placeholder=" ...",
        break_on_hyphens=False,
    )


def _latest(backend: str) -> str:
    versions = installed.named(backend).rules.get("versions")
    return str(versions[0]["version"]) if isinstance(versions, list) and versions else NEWEST
