"""Spread over a Ray cluster of two nodes: the plain run's answers, also when a worker or a node is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from waiting import until

import memserve
from memserve.errors import AuthenticationFailed, BudgetSpent, InvalidInput
from memserve.protocol import Capabilities, Completion, Usage
from memserve.run import run

pytestmark = [
    pytest.mark.engine("ray"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning"),  # Ray's own
]
SMALL = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def nodes():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={**SMALL, "num_cpus": 1, "include_dashboard": False}
    )
    cluster.add_node(**SMALL)
    ray.init(address=cluster.address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def requests():
    return [{"id": f"q{n}", "prompt": f"prompt {n}", "meta": {"n": n}} for n in range(120)]


def http(server, **options):
    return partial(
        memserve.generator, "m", backend="openai", base_url=server.url, api_key="sk-secret", **options
    )


def texts(rows):
    """What an answers file says, without when and how fast."""
    kept = ("id", "index", "text", "finish_reason", "model", "usage", "meta", "key")
    return sorted(json.dumps({name: row.get(name) for name in kept}) for row in rows)


class TestSame:
    def test_answers_are_the_plain_runs_byte_for_byte(self, nodes, serve, out, rows, requests, tmp_path):
        server = serve()
        with http(server)() as generator:
            run(requests, tmp_path / "plain.jsonl", generator=generator)
        summary = run(requests, out, generator=http(server), distributed="ray", workers=2)
        assert (summary.done, summary.failed, summary.pending) == (120, 0, 0)
        assert texts(rows(out)) == texts(rows(tmp_path / "plain.jsonl"))
        assert set(Counter(server.posts).values()) == {2}

    def test_an_open_generator_is_opened_again_in_each_worker(self, nodes, serve, out, rows, requests):
        server = serve()
        with http(server)() as generator:
            summary = run(requests[:20], out, generator=generator, distributed="ray", workers=2)
        assert summary.done == 20 and len(rows(out)) == 20

    def test_a_plain_run_is_resumed_on_ray_and_the_other_way_round(self, nodes, serve, out, rows, requests):
        server = serve()
        with http(server)() as generator:
            run(requests[:40], out, generator=generator)
            summary = run(requests[:80], out, generator=http(server), distributed="ray", workers=2)
            assert (summary.done, summary.resumed) == (40, 40)
            summary = run(requests, out, generator=generator)
        assert (summary.done, summary.resumed) == (40, 80)
        assert set(Counter(server.posts).values()) == {1}

    def test_local_engines_get_lists(self, nodes, out, rows, requests):
        summary = run(requests, out, generator=Listing, distributed="ray", workers=2)
        assert summary.done == 119 and summary.failed == 1
        assert {row["text"] for row in rows(out)} == {f"PROMPT {n}" for n in range(120) if n != 7}


class TestKilled:
    def test_a_killed_worker_loses_and_repeats_nothing(self, nodes, serve, out, rows, requests, tmp_path):
        server = serve(seconds=0.3)
        opener = partial(noting, str(tmp_path), http(server))
        with ThreadPoolExecutor() as pool:
            killed = pool.submit(kill_one_of, tmp_path, server, 30)
            summary = run(requests, out, generator=opener, distributed="ray", workers=2, concurrency=8)
            assert killed.result() > 0
        assert len(list(tmp_path.glob("*.pid"))) == 3, "the killed worker was started again"
        assert (summary.done, summary.failed) == (120, 0)
        assert sorted(row["id"] for row in rows(out)) == sorted(request["id"] for request in requests)
        posted = Counter(server.posts)
        assert len(posted) == 120 and sum(posted.values()) <= 120 + 4, (
            "only what was in flight is asked again"
        )
        assert max(posted.values()) <= 2

    def test_a_killed_node_loses_and_repeats_nothing(self, nodes, serve, out, rows, requests):
        extra = nodes.add_node(**SMALL)
        nodes.wait_for_nodes()
        server = serve(seconds=0.3)
        with ThreadPoolExecutor() as pool:
            killed = pool.submit(kill_node, nodes, extra, server, 30)
            summary = run(requests, out, generator=http(server), distributed="ray", workers=3, concurrency=12)
            killed.result()
        assert (summary.done, summary.failed) == (120, 0)
        assert sorted(row["id"] for row in rows(out)) == sorted(request["id"] for request in requests)
        posted = Counter(server.posts)
        assert len(posted) == 120 and sum(posted.values()) <= 120 + 12

    def test_a_killed_driver_is_resumed(self, nodes, serve, out, rows, requests, tmp_path):
        server = serve(seconds=0.1)
        path = tmp_path / "requests.jsonl"
        path.write_text("\n".join(map(json.dumps, requests)), encoding="utf-8")
        which = [
            "--model",
            "m",
            "--backend",
            "openai",
            "--base-url",
            server.url,
            "--options",
            "api_key=sk-secret",
        ]
        words = [*which, "--ray", nodes.address, "--workers", "2", "--concurrency", "4", "--quiet"]
        command = [sys.executable, "-m", "memserve.run", str(path), "-o", str(out), *words]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: len(rows(out)) >= 30)
        first.kill()
        first.communicate()
        wait_for_silence(server)
        kept = len({row["id"] for row in rows(out)})
        first_asked = len(server.posts)
        assert kept < 120 and first_asked < 120, "workers of a dead driver finish what they hold, and no more"
        second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert second.returncode == 0, second.stderr
        assert "sk-secret" not in second.stderr
        assert len({row["id"] for row in rows(out)}) == 120
        assert len(server.posts) - first_asked == 120 - kept, "what is on disk is not asked for again"


class TestFailures:
    def test_a_bad_request_fails_alone(self, nodes, out, rows, failed):
        prompts = ["good", "bad", "worse"]
        summary = run(prompts, out, generator=Failing, distributed="ray", workers=1)
        assert (summary.done, summary.failed) == (1, 2)
        assert {row["error"] for row in failed()} == {"BadRequest", "EngineFailed"}

    def test_a_wrong_key_ends_the_run(self, nodes, serve, out, requests):
        server = serve()
        server.status = 401
        with pytest.raises(AuthenticationFailed) as caught:
            run(requests, out, generator=http(server), distributed="ray", workers=2)
        assert "sk-secret" not in str(caught.value)
        assert len(server.posts) < 120

    def test_a_throttled_request_is_asked_again(self, nodes, serve, out, requests):
        server = serve()
        server.a_second = 20
        summary = run(requests[:40], out, generator=http(server, max_retries=0), distributed="ray", workers=2)
        assert (summary.done, summary.failed) == (40, 0) and server.refused

    def test_the_budget_ends_the_run(self, nodes, serve, out, requests):
        server = serve()
        with pytest.raises(BudgetSpent):
            run(requests, out, generator=http(server), distributed="ray", workers=2, budget="300tok",
                settings={"max_tokens": 5})  # fmt: skip
        assert 5 <= len(server.posts) <= 20


class TestRefused:
    def test_more_workers_than_the_cluster_bears(self, nodes, out):
        with pytest.raises(InvalidInput, match="64 workers need 64 CPU"):
            run(["a"], out, generator=Failing, distributed="ray", workers=64)

    def test_what_workers_cannot_open(self, nodes, out, fake):
        with pytest.raises(InvalidInput, match="cannot open"):
            run(["a"], out, generator=fake(), distributed="ray")

    def test_limits_of_one_process(self, out):
        with pytest.raises(InvalidInput, match="rpm and tpm"):
            run(["a"], out, generator=Failing, distributed="ray", rpm=10)


class Listing:
    capabilities = Capabilities(backend="lists", model="fake-1", batches=True)

    def generate(self, prompts, *, on_error="raise", **settings):
        return [self.one(prompt) for prompt in prompts]

    def one(self, prompt):
        error = memserve.errors.ContextOverflow("too long") if prompt == "prompt 7" else None
        return Completion(
            text=None if error else prompt.upper(), finish_reason="stop", usage=Usage(1, 1), error=error
        )


class Failing:
    capabilities = Capabilities(backend="failing", model="fake-1")

    async def agenerate(self, prompt, **settings):
        if prompt == "bad":
            raise memserve.errors.BadRequest("no", status=400)
        if prompt == "worse":
            raise KeyError("lost")
        return Completion(text=prompt.upper(), finish_reason="stop", usage=Usage(1, 1))


def noting(folder, opener):
    """Open a generator, and note in which process."""
    Path(folder, f"{os.getpid()}.pid").touch()
    return opener()


def kill_one_of(folder, server, after):
    """Kill one worker process once so many answers were given; how many were given then."""
    until(lambda: len(server.answered) >= after)
    given = len(server.answered)
    os.kill(int(next(folder.glob("*.pid")).stem), signal.SIGKILL)
    assert given < 120
    return given


def kill_node(cluster, node, server, after):
    until(lambda: len(server.answered) >= after)
    assert len(server.answered) < 120
    cluster.remove_node(node, allow_graceful=False)


def wait_for_silence(server):
    """Until no worker of a dead driver asks any more."""
    seen = -1
    while seen != len(server.posts):
        seen = len(server.posts)
        time.sleep(3)
