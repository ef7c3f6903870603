"""The planner's page in a real Chromium beside the command line: the same engine, weights and tokens?

python benchmarks/page.py [--questions 50]      needs node and npm; the browser comes from npm, too
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "support"))
import questions  # noqa: E402

BROWSER = ("playwright-core@1", "@sparticuz/chromium")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        """Nothing."""


def wanted(asked):
    """What the command line says."""
    words = ["-m", "memserve.plan", asked["model"], "--gpus", asked["gpus"], "--json"]
    words += ["--context", asked["context"], "--concurrency", asked["concurrency"]]
    return json.loads(subprocess.run([sys.executable, *words], capture_output=True, check=False).stdout)


def told(answer):
    """The part of an answer that must be the same."""
    plan = answer["plan"] or answer["closest"] or {}
    names = ("backend", "engine_version", "quantization", "checkpoint", "kv_cache_tokens", "command")
    return answer["fits"], [plan.get(name) for name in names]


def shown(folder: Path, asked: list[dict[str, str]]):
    """Every question's answer in the browser."""
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), *BROWSER]
    subprocess.run(npm, check=True)
    page = folder / "page"
    subprocess.run([sys.executable, "-m", "memserve.plan", "--page", str(page)], check=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(page)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    node = ["node", str(Path(__file__).with_suffix(".mjs")), str(folder / "node_modules")]
    address = f"http://127.0.0.1:{server.server_port}/"
    done = subprocess.run(
        [*node, address], input=json.dumps(asked), text=True, capture_output=True, check=False
    )
    server.shutdown()
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=50)
    drawn = questions.questions(parser.parse_args().questions, seed=13)
    asked = [
        {"model": one.model, "gpus": one.gpus, **{k: str(v) for k, v in one.options.items()}} for one in drawn
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = shown(Path(folder), asked)
    differ = [
        (one, told(answer["answer"]), told(wanted(one)))
        for one, answer in zip(asked, found["answers"], strict=True)
        if told(answer["answer"]) != told(wanted(one))
    ]
    each = sorted(answer["ms"] for answer in found["answers"])
    print(
        f"Chromium {found['version']}: {len(asked) - len(differ)} of {len(asked)} questions answered the same"
    )
    seconds = f"{found['first'] / 1000:.1f} s ({found['cpu']:.1f} s of CPU in all of the browser's processes)"
    print(f"first answer after {seconds}, then {statistics.median(each):.0f} ms (median)")
    print(f"addresses asked beside the folder's own: {len(found['elsewhere'])}")
    for row in differ:
        print(*row, sep="\n  ")
    return bool(differ or found["elsewhere"])


if __name__ == "__main__":
    sys.exit(main())
