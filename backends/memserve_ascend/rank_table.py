"""HCCL's rank table for several nodes: which NPU, at which network address, has which rank.

python -m memserve_ascend.rank_table NODE=NPU,NPU,... NODE=NPU,...   addresses, rank 0 on the first node
python -m memserve_ascend.rank_table --here                          this node's NPUs, as NODE=... words

vLLM-Ascend on Ray finds ranks by itself; MindIE over several nodes, and prefill on other nodes than decoding,
want this file in RANK_TABLE_FILE (readable by its owner and group only).
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput, MemserveError

TOOL = "hccn_tool"
"""Comes with the driver; says an NPU's own network address."""


def rank_table(nodes: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """HCCL's version 1.0 table; every value is a string there, ranks run on through the nodes."""
    _check(nodes)
    servers, rank = [], 0
    for node, addresses in nodes.items():
        devices = []
        for number, address in enumerate(addresses):
            devices.append({"device_id": str(number), "device_ip": address, "rank_id": str(rank)})
            rank += 1
        servers.append({"server_id": node, "container_ip": node, "device": devices})
    return {
        "version": "1.0", "server_count": str(len(servers)), "server_list": servers, "status": "completed",
    }  # fmt: skip


def _check(nodes: Mapping[str, Sequence[str]]) -> None:
    if not nodes:
        raise InvalidInput("a rank table needs nodes", hint="NODE=NPU,NPU,... for each")
    every = [address for addresses in nodes.values() for address in addresses]
    wrong = next((address for address in (*nodes, *every) if not _is_address(address)), None)
    if wrong is not None:
        raise InvalidInput(f"{wrong[:60]!r} is not an IP address")
    if len(set(map(len, nodes.values()))) > 1:
        raise InvalidInput("the nodes differ in their number of NPUs, and every rank needs a peer")
    if len(set(every)) < len(every):
        raise InvalidInput("an NPU's address stands there twice")


def _is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def parsed(words: Sequence[str]) -> dict[str, list[str]]:
    """Nodes and their NPUs' addresses from NODE=NPU,NPU words."""
    found: dict[str, list[str]] = {}
    for word in words:
        node, equals, addresses = word.partition("=")
        if not equals or not addresses or node in found:
            raise InvalidInput(f"not NODE=NPU,NPU,... or a node named twice: {word[:80]!r}")
        found[node] = addresses.split(",")
    return found


def here() -> str:
    """This node's word for the command: its address and its NPUs', as the driver's tool tells them."""
    numbers = _npus()
    if not numbers:
        raise InvalidInput("this node has no NPUs (no /dev/davinci0)")
    return f"{_own_address()}={','.join(_address(number) for number in numbers)}"


def _npus() -> list[int]:
    return sorted(int(path.name.removeprefix("davinci")) for path in Path("/dev").glob("davinci[0-9]*"))


def _address(number: int) -> str:
    try:
        done = subprocess.run([TOOL, "-i", str(number), "-ip", "-g"], capture_output=True, text=True,
                              timeout=30, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InvalidInput(f"cannot run {TOOL}: {error}", hint="it comes with the NPU driver") from error
    found = re.search(r"ipaddr\s*:\s*([0-9a-fA-F.:]+)", done.stdout)
    if not found:
        raise InvalidInput(
            f"NPU {number} has no network address: {(done.stdout + done.stderr).strip()[:120]}"
        )
    return found.group(1)


def _own_address() -> str:
    """The address that this node calls others from; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 1))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def main(words: Sequence[str]) -> int:
    """Exit 0 with the table, or the word, on standard output; 2 for a malformed call."""
    if not words or words[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if words else 2
    try:
        print(here() if words[0] == "--here" else json.dumps(rank_table(parsed(words)), indent=1))
    except MemserveError as error:
        print(f"memserve_ascend.rank_table: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
