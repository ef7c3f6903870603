"""GGUF files by llama.cpp's own tools, and what they know; runs in the environment of making.json."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import version
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from memserve import files
from memserve.compress.worker.measure import ANSWER, compare, own_task, read
from memserve.compress.worker.model import copy_rest
from memserve_llamacpp.launch import PROJECTOR

SOURCE = "llama-cpp-python"
CONVERTER = "convert_hf_to_gguf.py"
INSIDE = ("conversion", "gguf-py", CONVERTER)
"""What of llama.cpp's source the converter needs."""


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Converted in the model's own 16 bits, then quantized to the level."""
    import llama_cpp

    level = job["method"].partition("-")[2]
    target = Path(job["target"]) / job["file"]
    whole = target.with_name("whole.gguf")
    words = [str(converter()), job["model"], "--outfile", str(whole), "--outtype", "auto"]
    _run(*words)
    if '"vision_config"' in (Path(job["model"]) / "config.json").read_text(encoding="utf-8"):
        eyes = [*words[:2], "--mmproj", "--outtype", "f16", "--outfile", str(target.with_name(PROJECTOR))]
        _run(*eyes)
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = files.table(__file__, "making.json")["methods"]["gguf"]["levels"][level]
    settings.nthread = os.cpu_count() or 1
    if llama_cpp.llama_model_quantize(str(whole).encode(), str(target).encode(), settings):
        raise RuntimeError(f"llama.cpp could not quantize {whole.name} to {level}")
    whole.unlink()
    copy_rest(job["model"], job["target"])
    return {"file": target.name}


def _run(*words: str) -> None:
    """What it said last is why it fails."""
    if subprocess.run([sys.executable, *words], check=False).returncode:
        raise SystemExit(1)


def converter() -> Path:
    """llama.cpp's converter of the release that is here: on the path, or out of its source archive."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memserve" / "llama.cpp"
    place = home / version(SOURCE)
    if not (place / CONVERTER).exists():
        place.mkdir(parents=True, exist_ok=True)
        words = ["download", "--no-deps", "--no-binary", SOURCE, "-d", str(place), f"{SOURCE}=={place.name}"]
        _run("-m", "pip", *words)
        archive = next(place.glob("*.tar.gz"))
        _unpack(archive, place)
        archive.unlink()
    return place / CONVERTER


def _unpack(archive: Path, place: Path) -> None:
    """The converter's files alone; the script itself last, since it says that all is there."""
    with tarfile.open(archive) as found:
        wanted = {}
        for one in found.getmembers():
            name = one.name.partition("/vendor/llama.cpp/")[2]
            if one.isfile() and ".." not in name and name.partition("/")[0] in INSIDE:
                wanted[name] = one
        for name, one in sorted(wanted.items(), key=lambda pair: pair[0] == CONVERTER):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(found.extractfile(one).read())  # type: ignore[union-attr]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The file compared with the original's answers, token by token the same ones."""
    import llama_cpp

    file = next(one for one in Path(job["model"]).glob("*.gguf") if one.name != PROJECTOR)
    ids, said = read(Path(job["kept"]))
    asked = json.loads((Path(job["kept"]) / "asked.json").read_text("utf-8")) if job["questions"] else []
    ends = [len(one) + most["max_tokens"] for one, most in zip(asked, job["questions"], strict=True)]
    longest = max([*(len(one) + ANSWER for one in ids), *ends])
    began = time.perf_counter()
    with redirect_stdout(sys.stderr):
        model = llama_cpp.Llama(str(file), n_ctx=longest, n_batch=longest, logits_all=True, verbose=False)
    load = time.perf_counter() - began

    def logits(one: list[int]) -> Any:
        model.reset()
        model.eval(one)
        return model.scores[: len(one)].copy()

    found = compare(logits, ids, said, Path(job["kept"]), original=False)
    found |= own_task(lambda given, most: _answer(model, given, most), job)
    seconds = _greedy(model, ids[0][:ANSWER])
    return {"folder": job["model"], "bytes": file.stat().st_size, "load_seconds": round(load, 3),
            "tokens_per_s": round(ANSWER / seconds, 3), **found}  # fmt: skip


def _next(model: Any, ids: list[int]) -> Iterator[int]:
    model.reset()
    model.eval(ids)
    while True:
        yield (token := int(model.scores[model.n_tokens - 1].argmax()))
        model.eval([token])


def _greedy(model: Any, ids: list[int]) -> float:
    """Seconds for the next tokens, ends included."""
    began = time.perf_counter()
    deque(islice(_next(model, ids), ANSWER), maxlen=0)
    return time.perf_counter() - began


def _answer(model: Any, ids: list[int], most: int) -> str:
    import llama_cpp

    ends = partial(llama_cpp.llama_vocab_is_eog, model._model.vocab)
    made = [*takewhile(lambda token: not ends(token), islice(_next(model, ids), most))]
    return str(model.detokenize(made).decode("utf-8", "replace"))
