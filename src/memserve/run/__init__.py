"""Long unattended runs: journal, order, limits, progress.  python -m memserve.run REQUESTS -o ANSWERS"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memserve.options import spelled
from memserve.protocol import Embedder, Generator, Prompt, Request, Reranker, Settings
from memserve.run.summary import Summary, answers, vectors
from memserve.run.summary import lines as batch_lines

if TYPE_CHECKING:
    from memserve.run.options import Log, Order
    from memserve.run.tasks import Task

__all__ = ["Summary", "answers", "batch_lines", "run", "vectors"]


@spelled
def run(requests_or_path: str | Path | Iterable[Request | Mapping[str, Any] | Prompt], output: str | Path, *,
        generator: Generator | Embedder | Reranker | Callable[[], Generator], resume: bool = True,
        concurrency: int | None = None, rpm: float | None = None, tpm: float | None = None,
        retry_failed: bool = False, cache: str | Path | None = None, budget: str | float | None = None,
        price: tuple[float, float] | None = None, order: Order = "prefix", patience: float = 600.0,
        settings: Settings | None = None, task: Task | None = None, progress: bool | None = None,
        batch: bool = False, cache_marks: bool = True, page: str | Path | None = None,
        watch: int | None = None, log: Log | None = None, telemetry: bool = False,
        distributed: Literal["ray"] | None = None, address: str | None = None, workers: int | None = None,
        worker_resources: Mapping[str, Any] | None = None) -> Summary:  # fmt: skip
    """Ask for every request that has no answer in `output` yet, and write each answer down as it comes.

    `concurrency` is the most in flight, `rpm` and `tpm` requests and tokens a minute, `budget` "20usd" or
    "5mtok" for all runs on this output together, `settings` what requests leave open (max_tokens, ...).
    `batch` submits everything to the provider's batch service, at its price, and waits for the answers.
    An embedder's run writes vectors, a reranker's scores, `task="score"` a generator's log-likelihoods.
    `page` is written while the run goes on; `watch` shows it, and metrics, on a port of this machine; `log`
    is a tracker's function, called as log({name: figure}, step=N); `telemetry` sends OpenTelemetry's.
    `distributed="ray"` spreads the run over a Ray cluster (docs/clusters.md): `generator` is then one that
    memserve opened, or what opens one when called; each of the `workers` opens its own.
    Raises what ended the run early (a spent quota, a wrong key, a full disk, Ctrl-C); running again goes on.
    """
    from memserve.run.job import Job
    from memserve.run.options import Options

    options = Options.of(
        resume=resume, retry_failed=retry_failed, concurrency=concurrency, rpm=rpm, tpm=tpm, cache=cache,
        budget=budget, price=price, order=order, patience=patience, settings=settings, task=task, batch=batch,
        cache_marks=cache_marks, page=page, watch=watch, log=log, telemetry=telemetry, progress=progress,
        distributed=distributed, address=address, workers=workers, worker_resources=worker_resources,
    )  # fmt: skip
    job = Job(requests_or_path, output, generator, options)
    summary = job.execute()
    if job.interrupts:
        job.interrupts.again()
    if job.error:
        raise job.error
    return summary
