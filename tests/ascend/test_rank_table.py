"""HCCL's rank table: every NPU of every node once, ranks running on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from memserve.errors import InvalidInput
from memserve_ascend.rank_table import here, parsed, rank_table

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "memserve_ascend.rank_table"]


def test_ranks_run_on_through_the_nodes() -> None:
    table = rank_table({"10.0.0.1": ["29.1.0.1", "29.1.0.2"], "10.0.0.2": ["29.1.0.3", "29.1.0.4"]})
    devices = [one for server in table["server_list"] for one in server["device"]]
    assert [one["rank_id"] for one in devices] == ["0", "1", "2", "3"]
    assert [one["device_id"] for one in devices] == ["0", "1", "0", "1"]
    assert (table["version"], table["server_count"], table["status"]) == ("1.0", "2", "completed")


@pytest.mark.parametrize(
    ("words", "meaning"),
    [([], "needs nodes"), (["10.0.0.1"], "not NODE="), (["10.0.0.1="], "not NODE="),
     (["10.0.0.1=29.0.0.1", "10.0.0.1=29.0.0.2"], "named twice"), (["node=29.0.0.1"], "not an IP address"),
     (["10.0.0.1=29.0.0.1,"], "not an IP address"),
     (["10.0.0.1=1.1.1.1", "10.0.0.2=1.1.1.1"], "there twice"),
     (["10.0.0.1=1.1.1.1,1.1.1.2", "10.0.0.2=1.1.1.3"], "differ in their number")],
)  # fmt: skip
def test_tables_that_cannot_be_are_refused(words: list[str], meaning: str) -> None:
    with pytest.raises(InvalidInput, match=meaning):
        rank_table(parsed(words))


def test_the_command_prints_the_table_or_one_line() -> None:
    words = ["10.0.0.1=29.1.0.1", "10.0.0.2=29.1.0.2"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == rank_table(parsed(words))
    wrong = subprocess.run([*COMMAND, "x"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_node_without_npus_says_so() -> None:
    with pytest.raises(InvalidInput, match="no NPUs"):
        here()


def test_a_node_asks_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "hccn_tool"
    tool.write_text("#!/bin/sh\necho ipaddr:29.1.0.$2\necho netmask:255.255.0.0\n")
    tool.chmod(0o755)
    monkeypatch.setattr("memserve_ascend.rank_table.TOOL", str(tool))
    monkeypatch.setattr("memserve_ascend.rank_table._npus", lambda: [0, 1])
    node, _, addresses = here().partition("=")
    assert node.count(".") == 3
    assert addresses == "29.1.0.0,29.1.0.1"
