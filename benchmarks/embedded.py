"""The embedded default: start to the first token, and the engines that were considered for it.

    python benchmarks/embedded.py [--runs 5]                      figure: start of the default, at most 6 s
    python benchmarks/embedded.py --exact GGUF                    figure: nats a token against transformers
    python benchmarks/embedded.py --rate                          figure: tokens a CPU second of the default
    python benchmarks/embedded.py --engines GGUF --folder FOLDER  table: size, start, tokens a CPU second

The table needs openvino-genai, ctranslate2 and transformers; FOLDER is the same model for transformers.
ctranslate2 reads a copy converted with `ct2-transformers-converter --quantization int8` (--ct2 COPY).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from importlib.metadata import distribution

START = """
import time; start = time.time()
import memserve
generator = memserve.generator()
piece = next(iter(generator.stream("What is the capital of France?", max_tokens=4)))
print(time.time() - start, time.process_time())
"""
COMMON = """
import json, time
start, new = time.time(), 64
def told(first, cpu, made):
    rate = made / (time.process_time() - cpu)
    print(json.dumps({{"start_s": round(first - start, 2), "tokens_per_cpu_s": round(rate, 1)}}))
ids = {ids}
"""
ENGINES = {
    "openvino-genai": (("openvino", "openvino-genai", "openvino-tokenizers"), """
import numpy, openvino, openvino_genai as genai
pipe = genai.LLMPipeline({gguf!r}, "CPU")
data = openvino.Tensor(numpy.array([ids]))
pipe.generate(data, max_new_tokens=1); first, cpu = time.time(), time.process_time()
pipe.generate(data, max_new_tokens=new, ignore_eos=True)
told(first, cpu, new)
"""),
    "ctranslate2": (("ctranslate2", "tokenizers"), """
import ctranslate2
from tokenizers import Tokenizer
pipe = ctranslate2.Generator({ct2!r}, device="cpu", intra_threads=2)
words = Tokenizer.from_file({folder!r} + "/tokenizer.json")
prompt = [words.id_to_token(i) for i in ids]
run = lambda n: pipe.generate_batch([prompt], max_length=n, min_length=n, include_prompt_in_result=False)
run(1); first, cpu = time.time(), time.process_time()
run(new)
told(first, cpu, new)
"""),
    "transformers": (("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "sympy"), """
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(2)
model = AutoModelForCausalLM.from_pretrained({folder!r})
run = lambda n: model.generate(torch.tensor([ids]), max_new_tokens=n, min_new_tokens=n, do_sample=False)
run(1); first, cpu = time.time(), time.process_time()
run(new)
told(first, cpu, new)
"""),
}  # fmt: skip
IDS = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]


def megabytes(packages: tuple[str, ...]) -> float:
    """Installed size of some distributions."""
    files = [file for package in packages for file in distribution(package).files or ()]
    paths = [file.locate() for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def fresh(code: str) -> str:
    """What a fresh interpreter prints last."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip().splitlines()[-1]


def start(runs: int) -> None:
    fresh(START)  # fetches and converts the weights, once
    pairs = [tuple(map(float, fresh(START).split())) for _ in range(runs)]
    print(json.dumps({
        "figure": "start", "runs": runs, "seconds": round(statistics.median(p[0] for p in pairs), 2),
        "cpu_seconds": round(statistics.median(p[1] for p in pairs), 2),
    }))  # fmt: skip


def table(given: argparse.Namespace) -> None:
    paths = {"gguf": given.engines, "folder": given.folder, "ct2": given.ct2, "ids": IDS}
    for name, (packages, code) in ENGINES.items():
        if name == "ctranslate2" and not given.ct2:
            continue
        told = json.loads(fresh((COMMON + code).format(**paths)))
        print(json.dumps({"engine": name, "install_mb": round(megabytes(packages)), **told}), flush=True)


def exact(gguf: str) -> None:
    """Log-likelihoods of 200 continuations of a text, against transformers on the same weights in float32."""
    import random
    from pathlib import Path

    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    import memserve

    file, draw = Path(gguf), random.Random(0)
    plain = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, quantization_config=plain
    )
    with memserve.generator() as generator:
        ids = generator.encode(Path(random.__file__).read_text(encoding="utf-8"))
        places = [draw.randrange(32, len(ids) - 8) for _ in range(200)]
        pairs = [(ids[at - 32 : at], ids[at : at + draw.randint(1, 7)]) for at in places]
        scores = generator.score(pairs)
    apart = []
    for (before, after), score in zip(pairs, scores, strict=True):
        with torch.inference_mode():
            rows = model(torch.tensor([[*before, *after]])).logits[0].double().log_softmax(-1)
        own = sum(float(rows[len(before) - 1 + i, token]) for i, token in enumerate(after))
        apart.append(abs(own - score.logprob) / len(after))
    print(json.dumps({
        "figure": "exactness", "continuations": len(apart), "largest_nats_a_token": round(max(apart), 6),
        "median": round(statistics.median(apart), 6),
    }))  # fmt: skip


RATE = """
import time, memserve
with memserve.generator() as generator:
    generator.generate("Hi", max_tokens=4)
    start, made = time.process_time(), 0
    for prompt in ("Tell me a story.", "Count to a hundred.", "What is a river?"):
        made += generator.generate(prompt, max_tokens=96).usage.completion_tokens
print(made / (time.process_time() - start))
"""


def rate(runs: int) -> None:
    told = [float(fresh(RATE)) for _ in range(runs)]
    print(json.dumps({"figure": "rate", "runs": runs, "tokens_per_cpu_s": round(statistics.median(told), 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--engines", metavar="GGUF")
    parser.add_argument("--exact", metavar="GGUF")
    parser.add_argument("--rate", action="store_true")
    parser.add_argument("--folder")
    parser.add_argument("--ct2")
    given = parser.parse_args()
    if given.engines:
        table(given)
    elif given.exact:
        exact(given.exact)
    elif given.rate:
        rate(given.runs)
    else:
        start(given.runs)


if __name__ == "__main__":
    main()
