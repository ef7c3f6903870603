"""A run on a Ray cluster against the plain run: the same answers, also when a worker or a node is killed.

    pip install "memserve[ray]"; python benchmarks/run_on_ray.py [--requests 200] [--seconds 0.2]

Each figure is printed with what it must reach; the exit code is 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memserve
from memserve.run import Summary, answers, run

if TYPE_CHECKING:
    from collections.abc import Callable

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
IN_FLIGHT = 8
TIMED = ("at", "seconds", "check")


class Server(ThreadingHTTPServer):
    """An OpenAI-style server on loopback that counts what it answers."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds = seconds
        self.posts: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        self.server.posts.append(prompt)
        time.sleep(self.server.seconds)
        message = {"role": "assistant", "content": prompt[::-1]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        data = json.dumps(
            {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *words: Any) -> None:
        """Quiet."""


def noting(folder: str, url: str) -> Any:
    """Open a generator, and note in which process."""
    Path(folder, f"{os.getpid()}.pid").touch()
    return memserve.generator("m", backend="openai", base_url=url, api_key="none")


class Bench:
    def __init__(self, cluster: Any, requests: int, seconds: float) -> None:
        self.cluster, self.seconds = cluster, seconds
        self.requests = [{"id": f"q{n}", "prompt": f"prompt {n}"} for n in range(requests)]
        self.plain: list[str] = []
        self.good = True

    def run(self, name: str, *, workers: int = 0, kill: Callable[[Path, Server], None] | None = None) -> None:
        """One run, and what it lost, repeated and asked again."""
        server = Server(self.seconds)
        with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor() as pool:
            output = Path(place, "answers.jsonl")
            opener = partial(noting, place, f"http://127.0.0.1:{server.server_port}/v1")
            killed = pool.submit(kill, Path(place), server) if kill else None
            summary = self._asked(output, opener, workers)
            if killed:
                killed.result()
            self._report(name, summary, list(answers(output)), server, workers)
        server.shutdown()

    def _asked(self, output: Path, opener: Any, workers: int) -> Summary:
        if workers:
            return run(self.requests, output, generator=opener, distributed="ray", workers=workers,
                       concurrency=IN_FLIGHT * workers, progress=False)  # fmt: skip
        with opener() as generator:
            return run(self.requests, output, generator=generator, concurrency=IN_FLIGHT, progress=False)

    def _report(
        self, name: str, summary: Summary, rows: list[dict[str, Any]], server: Server, workers: int
    ) -> None:
        said = sorted(
            json.dumps({key: value for key, value in row.items() if key not in TIMED}) for row in rows
        )
        self.plain = self.plain or said
        times = Counter(row["id"] for row in rows)
        lost, repeated = len(self.requests) - len(times), sum(times.values()) - len(times)
        again = len(server.posts) - len(self.requests)
        same = said == self.plain
        most = IN_FLIGHT if "killed" in name else 0
        answers_are = "the same" if same else "OTHER"
        print(f"{name}: {lost} lost, {repeated} repeated, {answers_are} answers as the plain run's,")
        print(f"    {again} asked again (at most {most}), {summary.seconds:.1f} s")
        self.good &= same and not lost and not repeated and again <= most

    def kill_worker(self, place: Path, server: Server) -> None:
        self._wait(server)
        os.kill(int(next(place.glob("*.pid")).stem), signal.SIGKILL)

    def kill_node(self, place: Path, server: Server) -> None:
        self._wait(server)
        self.cluster.remove_node(self.extra, allow_graceful=False)

    def add_node(self) -> None:
        self.extra = self.cluster.add_node(**NODE)
        self.cluster.wait_for_nodes()

    def _wait(self, server: Server) -> None:
        """Until a quarter was asked."""
        while len(server.posts) < len(self.requests) // 4:
            time.sleep(0.02)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--requests", type=int, default=200)
    words.add_argument("--seconds", type=float, default=0.2)
    chosen = words.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    bench = Bench(cluster, chosen.requests, chosen.seconds)
    bench.run("plain run on one machine")
    bench.run("two nodes", workers=2)
    bench.run("two nodes, a worker killed", workers=2, kill=bench.kill_worker)
    bench.add_node()
    bench.run("three nodes, a node killed", workers=3, kill=bench.kill_node)
    ray.shutdown()
    cluster.shutdown()
    return 0 if bench.good else 1


if __name__ == "__main__":
    sys.exit(main())
