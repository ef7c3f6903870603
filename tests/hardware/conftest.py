"""Fake vendor tools on an otherwise empty PATH."""

import json
import stat
import sys

import pytest

TOOL = """#!{python}
import json, sys, time
words = " ".join(sys.argv[1:])
for part, answer in json.loads({answers!r}):
    if part in words:
        time.sleep(answer.get("sleep", 0))
        sys.stderr.write(answer.get("stderr", ""))
        sys.stdout.write(answer.get("stdout", ""))
        sys.exit(answer.get("code", 0))
sys.exit("unexpected: " + words)
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """`tools("nvidia-smi", ("--query-gpu", {"stdout": ...}), ...)` puts an executable on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("CUDA", "HIP", "ROCR", "ASCEND_RT"):
        monkeypatch.delenv(f"{variable}_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("memserve.hardware.detection.nvidia._DRIVER_MARKS", ())

    def make(name, *answers):
        path = folder / name
        path.write_text(TOOL.format(python=sys.executable, answers=json.dumps(answers)), encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    return make
