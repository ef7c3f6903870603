"""The how-to page for other people's clients: its Python runs as it stands, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from extras import need

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "clients.md").read_text(encoding="utf-8")
PARTS = re.findall(r"^## (.+?)\n.*?```python\n(.+?)```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "code"), PARTS, ids=[name for name, _ in PARTS])
def test_a_client_runs_as_the_page_says(endpoint, name, code, tmp_path):
    for module in re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE):
        need(module, "oracles")
    file = tmp_path / "page.py"
    file.write_text(
        code.replace('"qwen"', '"talker-1"').replace("/qwen", "/talker-1").replace(":qwen", ":talker-1")
    )
    world = {
        **os.environ, "OPENAI_BASE_URL": endpoint.base_url, "OPENAI_API_KEY": "k", "HOME": str(tmp_path),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore", "LANGSMITH_TRACING": "false",
    }  # fmt: skip
    words = [sys.executable, str(file)]
    done = subprocess.run(words, env=world, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "you said" in done.stdout or "word" in done.stdout


def test_every_client_is_on_the_page():
    assert [name for name, _ in PARTS] == ["LangChain", "DSPy", "pydantic-ai", "instructor"]
