"""What `memserve compress` knows and refuses before any work: words, shapes, disk, memory, text."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

import memserve
from memserve.compress import checks, interpreter, job, text
from memserve.compress.__main__ import main, parser
from memserve.compress.analysis import strategies
from memserve.compress.report import Gate, judge
from memserve.engines import environment, making
from memserve.errors import DoesNotFit, EngineFailed, InvalidInput
from memserve.model import catalogue
from memserve.plan.search.checkpoints import to_make

Said = pytest.CaptureFixture[str]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 4, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 1000,
    "max_position_embeddings": 512, "torch_dtype": "bfloat16",
}  # fmt: skip


def config(folder: Path, **fields: Any) -> str:
    (folder / "config.json").write_text(json.dumps({**LLAMA, **fields}))
    return str(folder)


def dry(capsys: Said, *words: str, code: int = 0) -> dict[str, Any]:
    assert main([*words, "--dry-run", "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def failed(found: dict[str, Any]) -> list[str]:
    return [check["said"] for check in found["checks"] if not check["ok"]]


MALFORMED = (
    "--to fp9", "--to layers", "--to layers:0", "--to layers:1.5", "--to width:1", "--to width:0",
    "--to fp8:2", "--to gguf-q9", "--to gguf", "--to fp8 --to awq", "--to layers:1 --to layers:2", "",
    "--for 7xNOTHING", "--to fp8 --max-loss x", "--to fp8 --max-loss 2",
    "--to fp8 --max-loss 1", "--to fp8 --memory 16", "--to fp8 --python /no/python",
)  # fmt: skip


@pytest.mark.parametrize("line", MALFORMED)
def test_malformed_words_end_with_2(tmp_path: Path, capsys: Said, line: str) -> None:
    words = line.split()
    assert main([config(tmp_path), *words, "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("to", "says"), [
    ("2:4", "no engine runs 2:4"), ("qat", "trainer"), ("distill", "docs/compress.md"),
    ("layers:4", "4 layers"),
])  # fmt: skip
def test_what_cannot_be_had_is_refused(tmp_path: Path, capsys: Said, to: str, says: str) -> None:
    assert main([config(tmp_path), "--to", to, "-o", str(tmp_path / "out")]) == 1
    assert says in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(("hidden", "inner", "group"),
                         [(576, 1536, 64), (1024, 4096, 128), (96, 160, 32), (576, 1500, None)])  # fmt: skip
def test_the_group_comes_from_the_shapes(
    tmp_path: Path, capsys: Said, hidden: int, inner: int, group: int | None
) -> None:
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": hidden // 32}
    model = config(tmp_path, head_dim=32, **sizes)
    found = dry(capsys, model, "--to", "w4a16", code=0 if group else 1)
    said = next(check["said"] for check in found["checks"] if check["name"] == "w4a16")
    assert said.endswith(f"groups of {group}") if group else "down_proj has 1500" in said


def test_no_room_on_the_disk_is_told_before_work(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert main([config(tmp_path), "--to", "fp8", "-o", str(tmp_path / "out")]) == 1
    assert "disk" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_without_a_network_the_library_that_is_missing_is_named(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment that cannot be filled is no environment, and nothing has the checkpoint's name."""
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "UV_INDEX_URL": "http://127.0.0.1:9/simple",
               "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1",
               "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "UV_NO_CACHE": "1",
               "MEMSERVE_ENVIRONMENTS": str(tmp_path / "environments")}  # fmt: skip
    for name, value in nowhere.items():
        monkeypatch.setenv(name, value)
    for name in ("pytorch_model.bin", "tokenizer.json"):
        (tmp_path / name).touch()
    assert main([config(tmp_path), "--to", "fp8", "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "llmcompressor" in said or "127.0.0.1" in said or "pip" in said
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "environments").glob("*/.memserve-complete"))


def test_too_little_memory_is_told_before_work(capsys: Said) -> None:
    found = dry(capsys, "deepseek-v3", "--to", "w4a16", code=1)
    assert any("stored as fp8" in said or "GiB are needed" in said for said in failed(found))


@pytest.mark.parametrize("model", ["sentence-transformers/all-MiniLM-L6-v2", "Qwen/Qwen2.5-7B-Instruct-AWQ"])
def test_what_is_no_16_bit_generator_is_refused(capsys: Said, model: str) -> None:
    assert failed(dry(capsys, model, "--to", "fp8", code=1))


def test_pruning_and_quantizing_combine_in_that_order() -> None:
    assert [one.name for one in making.read(["w4a16", "layers:2"])] == ["layers:2", "w4a16"]


def test_predicted_bytes_fall_with_every_step(tmp_path: Path, capsys: Said) -> None:
    model = config(tmp_path)
    sizes = [dry(capsys, model, *words)["predicted_bytes"] for words in (
        ["--to", "layers:1"], ["--to", "layers:2"], ["--to", "layers:2", "--to", "width:0.5"],
        ["--to", "layers:2", "--to", "width:0.5", "--to", "fp8"])]  # fmt: skip
    assert sizes == sorted(sizes, reverse=True) and len({*sizes}) == 4


@pytest.mark.parametrize(("gpus", "runs", "refused"), [
    ("4xV100", {"gptq", "nf4", "gguf-q4_k_m"}, {"fp8", "nvfp4"}), ("1xH100", {"fp8", "w8a8", "gptq"}, set()),
    ("1xT4", {"gptq", "awq"}, set()), ("8x910B4", {"gguf-q8_0"}, {"nf4", "nvfp4", "int8"}),
    ("cpu", {"gguf-q4_k_m"}, {"nvfp4"}),
])  # fmt: skip
def test_the_card_decides_what_is_offered(gpus: str, runs: set[str], refused: set[str]) -> None:
    found = strategies(memserve.model.load("openchat/openchat_3.5"), memserve.hardware.parse(gpus), Gate())
    told = {one["method"]: one["refused"] for one in found}
    assert {name for name in runs if told[name]} == set() == {name for name in refused if not told[name]}
    assert all(one["risk"] and one["loss_source"] for one in found)
    order = [bool(one["refused"]) for one in found]
    assert order == sorted(order)


def test_targets_refuse_what_is_predicted_to_miss_them() -> None:
    spec, machine = memserve.model.load("llama-8b"), memserve.hardware.parse("1xL4")
    found = strategies(spec, machine, Gate(memory=6 << 30, min_speedup=1.5))
    kept = [one for one in found if not one["refused"]]
    assert kept and all(one["bytes"] <= 6 << 30 and one["speedup"] >= 1.5 for one in kept)
    assert any("MiB" in one["refused"] for one in found)


def test_every_command_that_the_planner_prints_is_read_back(tmp_path: Path) -> None:
    """Its checks pass, or say why, before any work."""
    made = 0
    kinds = [method.name for method in making.quantizations()]
    for row in [*catalogue.rows()][::12]:
        spec = memserve.model.load(row.id)
        for kind in kinds:
            checkpoint = to_make(spec, kind, "nvidia")
            assert checkpoint is not None and checkpoint.make is not None
            verb, *words = shlex.split(checkpoint.make)[1:]
            args = parser().read(words)
            order = checks.Order(spec, making.read(args.to), None, 256, 256, 8)
            found = checks.run(order, tmp_path)
            folder = checkpoint.id.rpartition("/")[0] if kind.startswith("gguf") else checkpoint.id
            assert (verb, args.model, f"./{args.output}") == ("compress", spec.id, folder)
            assert all(check["said"] for check in found)
            made += 1
    assert made >= 500


def test_the_planner_counts_the_groups_that_are_made() -> None:
    """128 does not divide every row: a model of 576 gets groups of 64, and fits."""
    seen = set()
    for row in [*catalogue.rows()][::5]:
        spec = memserve.model.load(row.id)
        for kind in ("gptq", "awq", "w4a16", "nvfp4"):
            planned, method = to_make(spec, kind, "nvidia"), making.one(kind)
            assert planned is not None
            try:
                group = method.group(spec)
            except DoesNotFit:
                continue
            assert (planned.group_size or method.row["multiple"][0]) == group
            seen.add(group)
    assert seen >= {16, 64, 128}
    assert memserve.plan.best("HuggingFaceTB/SmolLM2-135M-Instruct", "1xV100", quantization="gptq").fits


def test_on_ascend_the_maker_s_own_tool_is_named() -> None:
    spec = memserve.model.load("llama-8b")
    made = to_make(spec, "w8a8", "ascend")
    assert made is not None and str(made.make).startswith("msmodelslim quant")
    with pytest.raises(DoesNotFit, match="msmodelslim quant"):
        making.read(["w8a8"], "ascend")
    assert making.read(["w8a8"])[0].row["library"] == "llmcompressor"


def test_routers_towers_heads_and_narrow_projections_are_left_alone() -> None:
    layer = "model.layers.1."
    alone = ("lm_head", "model.language_model.lm_head", "visual.blocks.0.attn.qkv", f"{layer}mlp.gate",
             f"{layer}block_sparse_moe.gate", f"{layer}mlp.shared_expert_gate", f"{layer}feed_forward.router",
             "model.vision_tower.layers.0.self_attn.q_proj", f"{layer}self_attn.kv_a_proj_with_mqa",
             f"{layer}self_attn.q_a_proj")  # fmt: skip
    inner = ("mlp.gate_proj", "self_attn.q_proj", "mlp.experts.7.up_proj", "mlp.down_proj")
    touched = [f"{layer}{name}" for name in inner]
    assert [name for name in alone if not making.is_left_alone(name)] == []
    assert [name for name in touched if making.is_left_alone(name)] == []


@pytest.mark.parametrize(("loss", "saving", "grade"), [
    (0.005, 0.4, "excellent"), (0.005, 0.2, "good"), (0.02, 0.5, "good"), (0.05, 0.5, "acceptable"),
    (0.2, 0.7, "needs work"), (0.0, 0.0, "needs work"),
])  # fmt: skip
def test_grades(loss: float, saving: float, grade: str) -> None:
    before = {"perplexity": 10.0, "bytes": 1000, "tokens_per_s": 5.0}
    after = {"perplexity": 10 * (1 + loss), "bytes": round(1000 * (1 - saving)), "tokens_per_s": 5.0,
             "greedy_agreement": 1.0, "kl": 0.0}  # fmt: skip
    assert judge(before, after, Gate(), ())["grade"] == grade


def test_the_gate_refuses_what_nobody_can_compare() -> None:
    assert Gate(0.02).refuses(1, float("nan"), None)
    assert not Gate(0.02).refuses(1, 0.02, None)
    assert Gate(0.02).refuses(1, 0.0201, None)


def test_one_s_own_text_is_split_and_hashed(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    parts = [f"Paragraph {number} speaks of something else than all the others do." for number in range(20)]
    file.write_text("\n\n".join(parts))
    found = text.read(str(file))
    assert {*found.calibration.split("\n\n"), *found.judged.split("\n\n")} == {*parts}
    assert not {*found.calibration.split("\n\n")} & {*found.judged.split("\n\n")}
    assert found.sha256 == text.sha256(file.read_text())
    file.write_text("\n".join(parts))
    assert {*text.read(str(file)).calibration.split("\n\n")} <= {*parts}, "a line each, too"
    file.write_text("too short")
    with pytest.raises(InvalidInput, match="paragraphs"):
        text.read(str(file))


def test_a_run_s_requests_are_a_text(tmp_path: Path) -> None:
    part = {"role": "user", "content": [{"type": "text", "text": "x"}]}
    rows: list[dict[str, Any]] = [
        {"id": "1", "prompt": "one"}, {"prompt": [{"role": "user", "content": "two"}]}, {"prompt": "six"},
        {"custom_id": "3", "body": {"messages": [part]}}, {"id": "4", "prompt": "four", "text": "an answer"},
        {"messages": [{"role": "user", "content": "five"}]},
    ]  # fmt: skip
    file = tmp_path / "requests.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = text.read(str(file))
    said = (found.calibration + "\n\n" + found.judged).split("\n\n")
    assert sorted(said) == ["five", "four\nan answer", "one", "six", "two", "x"]


def test_the_manual_needs_no_hub_and_no_file() -> None:
    first, second = text.read(None), text.read(None)
    assert first == second and len(first.calibration) > 100_000 and len(first.judged) > 10_000


@pytest.mark.parametrize("option", ["--text", "--eval", "--python"])
def test_a_dry_run_looks_at_what_it_is_given(tmp_path, capsys, option):
    assert main([config(tmp_path), "--to", "fp8", option, str(tmp_path / "nothing"), "--dry-run"]) == 2
    assert "nothing" in capsys.readouterr().err


TALK = [{"role": "user", "content": "Which?"}]
QUESTION = {"prompt": "Which?", "expected": "this"}


@pytest.mark.parametrize("rows", [
    ["{bad"], [], [{**QUESTION, "prompt": 5}], [{**QUESTION, "prompt": ""}], [{**QUESTION, "expected": ""}],
    [{**QUESTION, "expected": None}], [{**QUESTION, "expected": []}], [{**QUESTION, "max_tokens": "many"}],
    [{**QUESTION, "max_tokens": -1}], [{"prompt": "Which?"}], [[QUESTION]], [QUESTION, {"prompt": "Which?"}],
])  # fmt: skip
def test_a_task_that_nobody_can_answer_is_malformed(tmp_path: Path, capsys: Said, rows: list[Any]) -> None:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (task := tmp_path / "task.jsonl").write_text("\n".join(lines))
    assert main([config(tmp_path), "--to", "fp8", "--eval", str(task), "--dry-run"]) == 2
    assert "no task" in capsys.readouterr().err


@pytest.mark.parametrize(("row", "expected"), [
    (QUESTION, ["this"]), ({**QUESTION, "expected": 4}, ["4"]),
    ({**QUESTION, "expected": ["a", 1.5]}, ["a", "1.5"]),
    ({"messages": TALK, "meta": {"expected": "this"}}, ["this"]),
    ({"custom_id": "1", "body": {"messages": TALK}, "expected": "x"}, ["x"]),
])  # fmt: skip
def test_a_task_is_read_in_every_form_of_requests(tmp_path: Path, row: Any, expected: list[str]) -> None:
    (task := tmp_path / "task.jsonl").write_text("\ufeff" + json.dumps(row) + "\n", encoding="utf-8")
    (found,) = text.questions(str(task))
    assert (found["expected"], found["max_tokens"]) == (expected, 64)
    assert "Which?" in json.dumps(found["prompt"])


@pytest.mark.parametrize(("said", "meant"), [
    ("FP8", "fp8"), ("Q4_K_M", "gguf-q4_k_m"), ("gguf-Q8_0", "gguf-q8_0"), ("gguf:q8_0", "gguf-q8_0"),
    ("bnb", "nf4"), (" awq ", "awq"), ("Layers:1", "layers:1"),
])  # fmt: skip
def test_methods_are_read_as_the_planner_reads_them(tmp_path, capsys, said, meant):
    assert dry(capsys, config(tmp_path), "--to", said)["methods"] == [meant]


def test_what_the_cards_or_the_memory_forbid_is_told_before_work(tmp_path: Path, capsys: Said) -> None:
    model = config(tmp_path)
    for words in (("nvfp4", "--for", "4xV100"), ("fp8", "--memory", "1MB"), ("layers:1", "--memory", "0GB")):
        (why,) = failed(dry(capsys, model, "--to", *words, code=1))
        assert ("V100" if "--for" in words else "are allowed") in why
        assert main([model, "--to", *words, "-o", str(tmp_path / "out")]) == 1
        assert why[:60] in capsys.readouterr().err
    assert dry(capsys, model, "--to", "layers:1", "--to", "fp8", "--for", "1xL4", "--memory", "1GB")["fits"]


@pytest.mark.parametrize("words", ["--window 1", "--length 1", "--window 513", "--length 513"])
def test_windows_that_the_model_cannot_read_are_refused(tmp_path, capsys, words):
    found = dry(capsys, config(tmp_path), "--to", "fp8", *words.split(), code=1)
    assert "2 to 512 tokens" in failed(found)[0]


@pytest.mark.parametrize(("there", "lacks"), [
    ((), "no weights"), (("adapter_model.safetensors", "training_args.bin"), "no weights"),
    (("pytorch_model.bin",), "no tokenizer"), (("model.gguf", "tokenizer.json"), "no weights"),
])  # fmt: skip
def test_a_folder_that_lacks_what_is_read_is_analysed_and_not_made(
    tmp_path: Path, capsys: Said, there: tuple[str, ...], lacks: str
) -> None:
    model = config(tmp_path)
    for name in there:
        (tmp_path / name).write_bytes(b"\2" + bytes(7) + b"{}")
    assert main([model, "--to", "fp8", "-o", str(tmp_path / "out")]) == 1
    assert lacks in capsys.readouterr().err
    assert lacks in next(one["said"] for one in dry(capsys, model, "--to", "fp8")["checks"])


@pytest.mark.parametrize("fields", [
    {"architectures": ["LlamaForSequenceClassification"]},
    {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 64, "d_ff": 128,
     "num_layers": 2, "num_heads": 4, "d_kv": 16},
])  # fmt: skip
def test_what_is_no_decoder_is_refused(tmp_path: Path, capsys: Said, fields: dict[str, Any]) -> None:
    assert "no decoder" in failed(dry(capsys, config(tmp_path, **fields), "--to", "fp8", code=1))[0]


def test_a_model_is_found_by_its_short_name_and_by_a_file_in_it(tmp_path: Path, capsys: Said) -> None:
    """What a library is given is a hub's id or a folder, whatever the planner takes as well."""
    assert dry(capsys, "qwen3-0.6b", "--to", "fp8")["model"] == "Qwen/Qwen3-0.6B"
    assert dry(capsys, f"{config(tmp_path)}/config.json", "--to", "fp8")["model"] == str(tmp_path)


def test_a_folder_is_the_same_model_whatever_is_made_beside_its_files(tmp_path: Path) -> None:
    before = job._identity(config(tmp_path))
    (tmp_path / "made.partial").mkdir()
    assert job._identity(str(tmp_path)) == before
    config(tmp_path, vocab_size=2000)
    assert job._identity(str(tmp_path)) != before


def test_more_layers_than_there_are_leave_no_negative_size(tmp_path, capsys):
    assert dry(capsys, config(tmp_path), "--to", "layers:99", code=1)["predicted_bytes"] >= 0


STREWING = """
import os
from pathlib import Path

def make(job):
    Path("logs").mkdir()
    return {"model": job["model"], "home": os.environ["HF_HOME"]}
"""


@pytest.mark.parametrize(("does", "says"), [
    ("os.kill(os.getpid(), 9)", "SIGKILL ended it, as when memory runs out"),
    ("os.kill(os.getpid(), 4)", "SIGILL ended it, hm"),
    ("raise ValueError('odd shapes\\nsay so: please')", "failed: ValueError: odd shapes"),
    ("os._exit(3)", "failed: hm"),
])  # fmt: skip
def test_how_a_library_ended_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, says: str
) -> None:
    (package := tmp_path / "ending").mkdir()
    (package / "__init__.py").write_text(
        f"import os\n\ndef make(job):\n    print('hm', flush=True)\n    {does}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    job = {"name": "make", "do": "make", "model": "model"}
    with pytest.raises(EngineFailed, match=says):
        interpreter.work(sys.executable, {"worker": "ending", "packages": []}, job, tmp_path / "work")


def test_what_a_library_strews_about_stays_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere" / "strewing"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STREWING)
    monkeypatch.syspath_prepend(str(package.parent))
    (here := tmp_path / "here").mkdir()
    (here / "model").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HOME", "cache")
    job = {"name": "make", "do": "make", "model": "model"}
    library = {"worker": "strewing", "packages": []}
    found = interpreter.work(sys.executable, library, job, Path("made.partial") / "work")
    assert (found["model"], found["home"]) == (str(here / "model"), str(here / "cache"))
    assert {one.name for one in here.iterdir()} == {"model", "made.partial"}
    assert (here / "made.partial" / "work" / "logs").is_dir()


def test_an_installer_speaks_on_stderr(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output is the answer's, a program's to read."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(EngineFailed):
        environment.make("pip install no-such-package-at-all", folder=tmp_path / "made", report=[].append)
    found = capfd.readouterr()
    assert "no-such-package-at-all" in found.err and not found.out


@pytest.mark.parametrize(("field", "said"), [
    ({"hidden_size": 288}, "no weight has that shape"),
    ({"num_hidden_layers": 5}, "the weights hold"),
    ({}, ""),
])  # fmt: skip
def test_a_config_that_the_weights_contradict(
    tmp_path: Path, capsys: Said, field: dict[str, int], said: str
) -> None:
    at, table = 0, {}
    for number, weight in enumerate(memserve.model.load(config(tmp_path)).weights):
        for one in range(weight.count):
            offsets = [at, at := at + 2 * math.prod(weight.shape)]
            table[f"{number}.{one}"] = {"dtype": "BF16", "shape": weight.shape, "data_offsets": offsets}
    head = json.dumps(table).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + at)
    (tmp_path / "tokenizer.json").write_text("{}")
    answer = dry(capsys, config(tmp_path, **field), "--to", "fp8", code=bool(said))
    assert said in " ".join(failed(answer))
    assert bool(failed(answer)) == bool(said)
