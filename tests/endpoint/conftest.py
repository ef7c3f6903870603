from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from extras import need
from talker import Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

ROOT = Path(__file__).parents[2]


@pytest.fixture
def weights() -> Path:
    """Real and tiny models, as tests/engines makes them."""
    home = Path.home() / ".cache" / "memserve" / "engines" / "weights-1"
    return Path(os.environ.get("MEMSERVE_WEIGHTS", home))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Running]:
    with running() as found:
        yield found


@pytest.fixture
def ask(endpoint: Running) -> Iterator[Any]:
    """Post to a route: the response."""
    httpx = need("httpx", "test")
    base = endpoint.base_url.removesuffix("/v1")
    with httpx.Client(base_url=base, headers={"Authorization": "Bearer k"}, timeout=60) as client:

        def post(route: str, body: Any = None, **more: Any) -> httpx.Response:
            return client.post(route, json=body, **more) if more or body is not None else client.get(route)

        yield post


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """Start `memserve serve` over the example backend: the process, its address and where its key is."""
    site = tmp_path / "site" / "toy-1.dist-info"
    site.mkdir(parents=True)
    (site / "entry_points.txt").write_text("[memserve.backends]\ntoy = memserve_toy:backend\n")
    path = os.pathsep.join((str(site.parent), str(ROOT / "examples" / "plugin")))
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> tuple[subprocess.Popen[str], str, str]:
        world = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
        command = [sys.executable, "-m", "memserve.serve", *words]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=world
        )
        started.append(process)
        assert process.stdout
        line = process.stdout.readline()
        found = re.match(r"ready: (http://\S+/v1)  key: ([^ ,]+)", line)
        assert found, (line, process.communicate())
        return process, found[1], found[2]

    yield begin
    for process in started:
        process.kill()
        process.communicate()
