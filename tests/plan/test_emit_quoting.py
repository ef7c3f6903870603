"""Words of a plan reach the engine as they are, whatever they hold: nothing is run, nothing is replaced."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from extras import need

from memserve.plan import Plan, best, emit

yaml = need("yaml", "dev")
HOSTILE = ["$(touch PWNED)NODE_0", "`touch PWNED`", "a;touch PWNED", "$HOME", "${NODE_0}", "a b'c\"d",
           "a:b:ro", "*", "~", "-x", "a\\$(touch PWNED)", "NODE_0", "", "#x",
           "!!", "$$(touch PWNED)"]  # fmt: skip
STAND_INS = {
    "scontrol": "printf 'n0\\nn1\\n'",
    "srun": 'while [[ $1 == --* ]]; do shift; done\n"$@"',
    "hostname": "echo 10.0.0.1",
    "vllm": 'printf \'%s\\0\' "$@" > "$LOG"',
}


def _with(*words: str) -> Plan:
    plan = best("llama-8b", "1xL4", backend="vllm")
    assert plan.launch is not None
    return replace(plan, launch=replace(plan.launch, command=("vllm", "serve", "tiny", *words)))


@pytest.mark.parametrize("word", HOSTILE)
def test_bash_gives_the_engine_each_word_as_it_is(tmp_path: Path, word: str) -> None:
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    plan = _with(word)
    plan = replace(plan, checkpoint=replace(plan.checkpoint, id=word))
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log"),
           "NODE_0": "10.0.0.1",
           "SLURM_JOB_NODELIST": "n0"}  # fmt: skip
    subprocess.run(["bash", "-c", emit.emit(plan, "slurm")], cwd=tmp_path, env=env, timeout=120, check=False)
    got = (tmp_path / "log").read_bytes().decode().split("\0")
    assert got[:3] == ["serve", "tiny", word]
    assert not (tmp_path / "PWNED").exists()


def test_an_address_beside_hostile_text_is_all_that_is_replaced(tmp_path: Path) -> None:
    from memserve.plan.emit.slurm import _word

    said = _word("$(touch PWNED)--at=NODE_0:1")
    done = subprocess.run(["bash", "-c", f"NODE_0=h; printf %s {said}"], cwd=tmp_path, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert done.stdout == "$(touch PWNED)--at=h:1"
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("word", HOSTILE)
def test_compose_is_told_words_and_folders_as_they_are(tmp_path: Path, word: str) -> None:
    folder = tmp_path / (word.strip("~") or "x")
    folder.mkdir()
    plan = _with(str(folder))
    plan = replace(plan, checkpoint=replace(plan.checkpoint, id=str(folder)))
    (service,) = yaml.safe_load(emit.emit(plan, "compose"))["services"].values()
    (mount,) = [one for one in service["volumes"] if isinstance(one, dict)]
    for said in (service["command"][3], mount["source"], mount["target"]):
        assert said.replace("$$", "").count("$") == 0
        assert said.replace("$$", "$") == str(folder)
    assert (mount["type"], mount["read_only"]) == ("bind", True)
