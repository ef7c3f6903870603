"""The Ray cluster of a run: joined, or started on this machine; refused if it is too small."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memserve.errors import ConnectionFailed, InvalidInput
from memserve.extras import missing
from memserve.run.options import Options

STANDARD = {"num_cpus": 1.0}
_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


@contextmanager
def cluster(options: Options) -> Iterator[int]:
    """Be connected; the number of workers. A cluster that was joined goes on afterwards."""
    ray = _ray()
    joined = not ray.is_initialized()
    if joined:
        _join(ray, options.address)
    try:
        workers = options.workers or sum(node["Alive"] for node in ray.nodes())
        _check_resources(ray.cluster_resources(), workers, remote_arguments(options))
        with _quiet(ray):
            yield workers
    finally:
        if joined:
            ray.shutdown()


def remote_arguments(options: Options) -> dict[str, Any]:
    """What each worker holds of its machine."""
    return {**STANDARD, **options.worker_resources}


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing("ray", "Ray Data, which spreads a run over machines") from error
    return ray


def _join(ray: Any, address: str | None) -> None:
    """A named cluster, the one of RAY_ADDRESS or of this machine, or else a new one of this machine alone."""
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        ray.init(address=address, **quiet, **({} if address else {"include_dashboard": False}))
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as broken:
        where = address or "of this machine"
        raise ConnectionFailed(
            f"no Ray cluster {where}: {str(broken)[:200]}", hint="ray start --head on one machine first"
        ) from broken


def _check_resources(resources: dict[str, float], workers: int, each: dict[str, Any]) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    wanted = {_NAMES[name]: amount for name, amount in each.items() if name in _NAMES and amount}
    wanted |= each.get("resources") or {}
    for name, amount in wanted.items():
        there = resources.get(name, 0.0)
        if there < amount * workers:
            raise InvalidInput(
                f"{workers} workers need {amount * workers:g} {name}, and the Ray cluster has {there:g}",
                hint="fewer workers, or more nodes: ray start --address HEAD:6379",
            )


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """The run has a progress line of its own; answers come as they are ready."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)
