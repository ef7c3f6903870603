"""lm-evaluation-harness: the same requests through its own model of transformers and through memserve."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import memserve

pytestmark = [
    pytest.mark.engine("harnesses"),
    pytest.mark.filterwarnings("ignore"),  # the harness's own, of which there are dozens
]
WORDS = ("river", "lamp", "stone", "green", "seven", "window", "bridge", "old", "stands", "under", "past")
LONG = " ".join(WORDS[place * place % 11] + str(place) for place in range(600))
"""Nowhere the same: lm-eval's own model takes windows with the same tokens for one (0.4.13)."""
CONTEXT = 512
CLOSE = {"rel": 1e-4, "abs": 1e-4}
PAIRS = [
    ("The capital of France is", " Paris"), ("The capital of France is", " Berlin."), ("", "Hello world"),
    ("A trailing blank ", "moves"), ("x" * 2000, " end"), (LONG, "and the end"), ("Q: 2 + 2?\nA:", " 4"),
]  # fmt: skip
TEXTS = ["Hello there, this is a text.", LONG, "One."]
ASKED = [
    ("The capital of France is", {"until": ["\n", "."], "max_gen_toks": 20}),
    ("Once upon a time", {"until": ["\n\n"], "max_gen_toks": 24, "do_sample": False, "temperature": 0.0}),
    ("1, 2, 3,", {"until": [], "max_new_tokens": 8}), (LONG, {"until": ["zzz"], "max_gen_toks": 8}),
]  # fmt: skip


def requests(kind, arguments):
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, place) for place, one in enumerate(arguments)]


@pytest.fixture(scope="module", params=["tiny", "smollm2"])
def folder(request, weights):
    return str(weights / request.param)


@pytest.fixture(scope="module")
def ours(folder):
    from lm_eval.api.registry import get_model

    import memserve.adapters.lm_eval

    assert get_model("memserve") is memserve.adapters.lm_eval.Memserve
    opened = get_model("memserve").create_from_arg_string(
        f"model={folder},backend=hf,dtype=float32,context={CONTEXT}"
    )
    with opened.generator:
        yield opened


@pytest.fixture(scope="module")
def theirs(folder):
    from lm_eval.api.registry import get_model

    return get_model("hf")(pretrained=folder, dtype="float32", device="cpu", batch_size=4, max_length=CONTEXT)


def test_likelihoods(ours, theirs):
    found, wanted = (side.loglikelihood(requests("loglikelihood", PAIRS)) for side in (ours, theirs))
    assert [pair[1] for pair in found] == [pair[1] for pair in wanted]
    assert [pair[0] for pair in found] == pytest.approx([pair[0] for pair in wanted], **CLOSE)


def test_an_endpoint_scores_for_the_harness_itself(ours, folder):
    """`local-completions` sends the prompt's ids and reads its echo: what it says is what memserve scores."""
    from lm_eval.api.registry import get_model

    words = ["--backend", "hf", "--model", folder, "--options", "dtype=float32", f"context={CONTEXT}"]
    command = [sys.executable, "-m", "memserve.serve", *words, "--name", "served", "--no-key"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            base = server.stdout.readline().split()[1]
            theirs = get_model("local-completions")(
                model="served", base_url=f"{base}/completions", tokenizer_backend="huggingface",
                tokenizer=folder, max_length=CONTEXT, num_concurrent=1, batch_size=4,
            )  # fmt: skip
            pairs = [pair for pair in PAIRS if len(ours.generator.encode("".join(pair))) < CONTEXT]
            found, wanted = (side.loglikelihood(requests("loglikelihood", pairs)) for side in (theirs, ours))
            again = memserve.generator("served", backend="openai", base_url=base, api_key="none")
            with again:
                known = again.score(pairs[:2] + pairs[3:4])
        finally:
            server.terminate()
    assert len(pairs) >= 4
    assert [pair[1] for pair in found] == [pair[1] for pair in wanted]
    assert [pair[0] for pair in found] == pytest.approx([pair[0] for pair in wanted], **CLOSE)
    same = wanted[:2] + wanted[3:4]
    assert [one.greedy for one in known] == [pair[1] for pair in same]
    assert [one.logprob for one in known] == pytest.approx([pair[0] for pair in same], **CLOSE)


def test_whole_texts(ours, theirs):
    asked = requests("loglikelihood_rolling", [(text,) for text in TEXTS])
    found, wanted = (side.loglikelihood_rolling(asked) for side in (ours, theirs))
    assert found == pytest.approx(wanted, **CLOSE)


def test_answers(ours, theirs):
    found, wanted = (side.generate_until(requests("generate_until", ASKED)) for side in (ours, theirs))
    assert found == wanted


def test_a_conversation(ours, theirs):
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    chats = [
        (side.apply_chat_template(talk), {"until": ["."], "max_gen_toks": 12}) for side in (ours, theirs)
    ]
    answers = [side.generate_until(requests("generate_until", [chat]))
               for side, chat in zip((ours, theirs), chats, strict=True)]  # fmt: skip
    assert answers[0] == answers[1]
    scored = [side.loglikelihood(requests("loglikelihood", [(chat[0], "Paris is")]))[0][0]
              for side, chat in zip((ours, theirs), chats, strict=True)]  # fmt: skip
    assert scored[0] == pytest.approx(scored[1], **CLOSE)


def test_a_setting_that_is_not_known_is_refused(ours):
    from memserve.errors import Unsupported

    asked = requests("generate_until", [("x", {"until": [], "num_beams": 4})])
    with pytest.raises(Unsupported, match="num_beams"):
        ours.generate_until(asked)


@pytest.mark.parametrize("chat", [[], ["--apply_chat_template"]], ids=["plain", "chat"])
def test_the_command_line(tmp_path, weights, chat):
    """lm-eval's own command line, which says device=cuda:0 unasked."""
    (tmp_path / "data.jsonl").write_text('{"question": "Capital of France?", "word": "Paris"}\n')
    (tmp_path / "towns.yaml").write_text(
        f'task: towns\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: "{tmp_path}/data.jsonl"}}\n'
        "output_type: generate_until\ntest_split: test\n"
        'doc_to_text: "{{question}}"\ndoc_to_target: "{{word}}"\n'
        'metric_list:\n  - metric: exact_match\ngeneration_kwargs:\n  until: ["."]\n  max_gen_toks: 4\n'
    )
    words = ["--model", "memserve", "--model_args", f"model={weights / 'tiny'},backend=hf,dtype=float32"]
    command = [sys.executable, "-m", "memserve.adapters.lm_eval", "run", *words, *chat]
    command += ["--tasks", "towns", "--include_path", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "exact_match" in done.stdout


TASKS = {
    "choice": ("multiple_choice", '["Paris", "Berlin", "animals"]', "{{place}}", "acc"),
    "said": ("generate_until", "", "{{word}}", "exact_match"),
    "text": ("loglikelihood_rolling", "", "{{question}} {{word}}", "word_perplexity"),
}


def test_tasks_by_the_harness_itself(ours, theirs, tmp_path):
    """A task of each kind out of YAML, run by lm-eval's own evaluator."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    rows = [("What is the capital of France?", "Paris", 0), ("And of Germany?", "Berlin", 1),
            ("What are cats and dogs?", "animals", 2), ("Is Paris in France?", "Paris", 0)]  # fmt: skip
    data = tmp_path / "data.jsonl"
    names = ("question", "word", "place")
    data.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    for name, (kind, choices, target, metric) in TASKS.items():
        more = f"doc_to_choice: {choices}\n" if choices else ""
        text = "" if kind == "loglikelihood_rolling" else "{{question}}\\nAnswer:"
        said = 'generation_kwargs:\n  until: ["\\n"]\n  max_gen_toks: 6\n' if kind == "generate_until" else ""
        (tmp_path / f"{name}.yaml").write_text(
            f'task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "{data}"\n'
            f'output_type: {kind}\ntest_split: test\ndoc_to_text: "{text}"\ndoc_to_target: "{target}"\n{more}'
            f"metric_list:\n  - metric: {metric}\n{said}"
        )
    tables = []
    for side in (ours, theirs):
        manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
        done = simple_evaluate(side, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0)
        tables.append({name: done["results"][name][f"{row[3]},none"] for name, row in TASKS.items()})
    assert tables[0] == pytest.approx(tables[1], rel=1e-4)
    assert tables[0]["text"] > 1
