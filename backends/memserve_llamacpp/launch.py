"""The command that starts llama.cpp's server: llama-cpp-python's, or its own."""

import re
from functools import cache
from itertools import pairwise

from memserve import files
from memserve.engines.deployment import Deployment
from memserve.engines.install import UNBOUNDED, UNSTATED, install_line, requirements, visible_cards, words
from memserve.engines.launch import Launch
from memserve.errors import InvalidInput
from memserve.files import lies
from memserve.hardware.machine import Machine
from memserve.memory import formats
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.model.spec import ModelSpec

LEVEL = re.compile(r"(?:^|[^a-z0-9])(i?q\d\w*|bf16|f16|mxfp4)(?=\W|_|$)", re.IGNORECASE)
BUILD = "git clone https://github.com/ggml-org/llama.cpp && cd llama.cpp && cmake -B build"
OLLAMA = "an ollama command says neither context nor offload: its server settles both by what is free"
PROJECTOR = "mmproj-F16.gguf"
"""What reads pictures, beside the model's file; `llama-server -hf` finds its own."""
SPLIT = 45e9
"""Bytes above which repositories hold a file in parts (the hub takes 50 GB); `llama_cpp.server` fails."""
WHOLE = frozenset({"unsloth", "TheBloke", "bartowski", "lmstudio-community", "QuantFactory", "MaziyarPanahi",
                   "ggml-org", "second-state"})  # fmt: skip
"""Who writes levels in capitals, and no smaller file in parts: `llama_cpp.server` knows no other spelling."""


class LlamacppLauncher:
    """Starts `python -m llama_cpp.server`; `llama-server` for several requests, parts, experts, pictures."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment. A hub id means a file of that repository."""
        from memserve_llamacpp import backend

        level = deployment.quantization.removeprefix("gguf-").upper()
        local, folder = checkpoint.endswith(".gguf"), checkpoint.rpartition("/")[0] or "."
        on_cpu, embeds = machine.card.vendor == "cpu", bool(model.encoder_only or model.pooling)
        held = storage(model, deployment.quantization, deployment.dtype)
        whole = local or checkpoint.partition("/")[0] in WHOLE
        parts = not whole or (not local and stage_bytes(model, Split(), held, 1)[0] > SPLIT)
        install = install_line(backend.rules, deployment, machine.card)
        notes = requirements(backend.rules, deployment, machine.card)
        away = deployment.host_layers
        mixed = any(block.experts for block in model.blocks)
        layers = 0 if on_cpu else len(model.blocks) - away if away and not mixed else None
        ranks = model.reranks  # llama_cpp.server has no route for scores
        if deployment.concurrency > 1 or ranks or parts or (mixed and away) or model.towers:
            start: tuple[str, ...] = ("llama-server",)
            options = {
                "hf-repo": None if local else f"{checkpoint}:{level}", "model": checkpoint if local else None,
                "n-gpu-layers": 999 if layers is None else layers, "n-cpu-moe": (mixed and away) or None,
                "ctx-size": deployment.context * deployment.concurrency,
                "parallel": deployment.concurrency, "embeddings": (embeds and not ranks) or None,
                "reranking": ranks or None,
                "mmproj": f"{folder}/{PROJECTOR}" if local and model.towers else None,
            }  # fmt: skip
            built = re.search(r"-D\w+=on", install)
            install = f"{BUILD} {built[0] if built else ''} && cmake --build build -t llama-server"
            notes = ("needs a C++ compiler and cmake: llama-server is built from llama.cpp",)
        else:
            start = ("python", "-m", "llama_cpp.server")
            options = {
                "hf_model_repo_id": None if local else checkpoint,
                "model": checkpoint if local else f"*{level}.gguf",
                "n_gpu_layers": -1 if layers is None else layers, "n_ctx": deployment.context,
                "embedding": "true" if embeds else None,
                "interrupt_requests": "false",  # else whoever asks next cuts off the answer before
            }  # fmt: skip
        env = visible_cards(machine, deployment.layout.cards)
        return Launch(install=install, command=(*start, *words(options)), env=env, notes=notes)

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment of such a line; None if it starts something else."""
        from memserve_llamacpp import backend

        said = backend.words(command)
        if said is None:
            return of_ollama(command) if command[0] == "ollama" else None
        file, repository = said.text("model") or said.text("hf-file") or "", said.text("hf-model-repo-id")
        if not repository and not file:
            raise InvalidInput("the command names no model", hint="write llama-server --model FILE.gguf")
        named, _, level = (repository or file).partition(":")
        return named, Deployment(
            backend="llamacpp", engine_version="", dtype="float16",
            quantization=level_of(file) if lies(file) else quantization(level or file.rpartition("/")[2]),
            context=(said.integer("n-ctx") or 0) // said.count("parallel") or UNSTATED,
            options=tuple({**dict(said.given()), **moved(command)}.items()),
        )  # fmt: skip


def moved(command: tuple[str, ...]) -> dict[str, str]:
    """All that `--override-tensor` says: each of several adds to the others."""
    said = [value for name, value in pairwise(command) if name in ("-ot", "--override-tensor")]
    return {"override-tensor": ",".join(said)} if said else {}


@cache
def _tags() -> dict[str, str]:
    """What a name without a tag pulls."""
    found: dict[str, str] = files.table(__file__, "ollama.json")["tags"]
    return found


def of_ollama(command: tuple[str, ...]) -> tuple[str, Deployment]:
    """`ollama run FAMILY:SIZE-LEVEL`, all on the card; in Q4_K_M where no level is said."""
    words = [word for word in command[1:] if not word.startswith("-")]
    pulled = re.fullmatch(
        r"(hf\.co/|huggingface\.co/|library/)?([\w./-]+?)(?::latest|:([\w.-]+))?", " ".join(words[1:2])
    )
    usual = "Q4_K_M" if pulled and pulled[1] and "/" in pulled[2] else None  # docs: hub/ollama
    pinned = pulled and (pulled[3] or _tags().get(pulled[2].lower(), usual))
    if pulled is None or words[0] not in ("run", "pull") or not pinned:
        raise InvalidInput(
            OLLAMA, hint="name a size, as llama3.1:8b, or check llama-server -m FILE.gguf -c N"
        )
    family, tag = pulled[2], pinned.lower().replace("fp16", "f16").replace("-qat", "-q4_0")
    said = LEVEL.search(tag)
    size = (tag[: said.start()] if said else tag).removesuffix("-text")
    level = quantization(tag) if said else "gguf-mxfp4" if family == "gpt-oss" else "gguf-q4_k_m"
    named = f"{family}:{pinned}" if "/" in family else f"{family}-{size}-{level[5:]}.gguf".replace("--", "-")
    return named, Deployment(
        backend="llamacpp", engine_version="", dtype="float16", quantization=level, context=UNBOUNDED,
    )  # fmt: skip


def level_of(file: str) -> str:
    """What the name of a file that lies here says; whatever it is called, it can be started."""
    try:
        return quantization(file.rpartition("/")[2])
    except InvalidInput:
        return "none"


def quantization(written: str) -> str:
    """What a file's or a level's name says; the L and XL of a level hold little more than its M."""
    found = LEVEL.search(written)
    if found is None:
        return "none"
    level = {"bf16": "f16", "q8_k_xl": "q8_0"}.get(found[1].lower(), found[1].lower())
    short = re.sub("_x?l$", "", level)
    for name in (level, f"{short}_m", short):
        if formats.named(f"gguf-{name}") is not None:
            return f"gguf-{name}"
    raise InvalidInput(
        f"llama.cpp has no level {found[1]!r}", hint="such as Q8_0, Q6_K, Q5_K_M, Q4_K_M, IQ4_XS"
    )


launcher = LlamacppLauncher()
