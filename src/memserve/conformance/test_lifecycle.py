"""Open, use, close: nothing is left behind, and two engines live side by side."""

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memserve.conformance.asking import answer, awaited, limited, question, said, streamed, worded
from memserve.errors import Closed

MIB = 2**20


def _settled(baseline: int, seconds: float = 10.0) -> int:
    end = time.monotonic() + seconds
    while threading.active_count() > baseline and time.monotonic() < end:
        time.sleep(0.05)
    return threading.active_count()


def test_close_may_be_called_twice(target: Any, generator: Any) -> None:
    held = target.generator()
    held.close()
    held.close()


def test_use_after_close_is_refused(target: Any, generator: Any) -> None:
    held = target.generator()
    can = held.capabilities
    answer(held, "x", 2)
    held.close()
    uses: list[Callable[[], Any]] = [
        lambda: answer(held, "x", 2),
        lambda: answer(held, ["x", "y"], 2),
        lambda: asyncio.run(awaited(held, "x", 2)),
    ]
    if can.stream:
        uses += [lambda: streamed(held, "x", 2), lambda: asyncio.run(_first(held, can))]
    if can.score:
        uses.append(lambda: held.score([("a", " b")]))
    if can.count_tokens:
        uses.append(lambda: held.count_tokens(worded(can, "x")))
    if can.tokenizer:
        uses += [lambda: held.encode("x"), lambda: held.decode([1])]
    for use in uses:
        with pytest.raises(Closed):
            use()


async def _first(held: Any, can: Any) -> Any:
    return await anext(held.astream(worded(can, "x"), **limited(can, 2, {})))


def test_a_with_block_closes(target: Any, generator: Any) -> None:
    with target.generator() as held:
        assert answer(held, "x", 2).error is None
    with pytest.raises(Closed):
        answer(held, ["x"], 2)


def test_a_with_block_hides_no_error(target: Any, generator: Any) -> None:
    with pytest.raises(ZeroDivisionError), target.generator():
        raise ZeroDivisionError


def test_two_engines_live_side_by_side(target: Any, generator: Any) -> None:
    before = answer(generator, question(1), 6)
    with target.generator() as second:
        other = answer(second, question(1), 6)
        beside = answer(generator, question(1), 6)
    after = answer(generator, question(1), 6)
    assert after.error is None
    if generator.capabilities.deterministic:
        assert before.text == other.text == beside.text == after.text


def test_close_leaves_no_threads(target: Any, generator: Any) -> None:
    _use(target)
    baseline = _settled(0, 0.2)
    for _ in range(2):
        _use(target)
    assert _settled(baseline) <= baseline


def _use(target: Any) -> None:
    with target.generator() as held:
        answer(held, ["x", "y"], 2)
        asyncio.run(awaited(held, "x", 2))
        if held.capabilities.stream:
            streamed(held, "x", 2)


def _children() -> int:
    """Processes that this one started and that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [pid for task in tasks for pid in task.read_text(encoding="ascii").split()]
    return sum(not _ended(pid) for pid in pids)


def _ended(pid: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    return True


def _resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_close_leaves_nothing_behind(target: Any, generator: Any) -> None:
    """No process, no open file, and not the memory of the models that were closed."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("capability device: this system does not show what a process holds")
    files = Path("/proc/self/fd")
    _use(target)
    _use(target)
    children, handles, memory = _children(), len(list(files.iterdir())), _resident()
    for _ in range(3):
        _use(target)
    end = time.monotonic() + 10
    while _children() > children and time.monotonic() < end:
        time.sleep(0.05)
    assert _children() <= children
    assert len(list(files.iterdir())) <= handles + 4
    assert _resident() - memory < max(3 * 32 * MIB, 1.5 * _weights(target))


def _weights(target: Any) -> int:
    return sum(file.stat().st_size for file in target.folder.glob("*.*")) if target.folder else 512 * MIB


def test_an_embedder_closes(target: Any, embedder: Any) -> None:
    held = target.embedder()
    held.embed(["x"])
    held.close()
    held.close()
    with pytest.raises(Closed):
        held.embed(["x"])
    with pytest.raises(Closed):
        asyncio.run(held.aembed(["x"]))


def test_a_reranker_closes(target: Any, reranker: Any) -> None:
    held = target.reranker()
    held.rerank("x", ["y"])
    held.close()
    held.close()
    with pytest.raises(Closed):
        held.rerank("x", ["y"])


# ---------------------------------------------------------------------- cancellation


def test_a_cancelled_request_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    async def give_up(after: float) -> bool:
        task = asyncio.create_task(awaited(generator, question(1), 48))
        await asyncio.sleep(after)
        late = task.done() or not task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return late or task.cancelled()

    before = answer(generator, question(2), 4)
    for seconds in (0, 0.001, 0.004, 0.02, 0.08):
        assert asyncio.run(give_up(seconds)), "a cancelled request was answered all the same"
        after = answer(generator, question(2), 4)
        assert after.error is None
        assert said(after) == said(before) or not can.deterministic


def _time() -> float:
    """Seconds but for those in which this thread waited for a processor: that is no backend's fault."""
    try:
        waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):  # not Linux
        waited = 0.0
    return time.monotonic() - waited


def test_awaiting_leaves_the_loop_free(generator: Any, can: Any) -> None:
    async def watch() -> bool:
        task, begin, longest = asyncio.create_task(awaited(generator, question(1), 160)), _time(), 0.0
        while not task.done():
            last = _time()
            await asyncio.sleep(0.002)
            longest = max(longest, _time() - last)
        took = _time() - begin
        return took < 0.04 or longest < 0.7 * took

    if can.context and can.context < 400:
        pytest.skip("capability context: too small for an answer that takes its time")
    assert any(asyncio.run(watch()) for _ in range(5)), "the event loop stood still during an answer"


def test_many_waiting_requests_all_come_back(generator: Any, can: Any) -> None:
    async def crowd() -> list[Any]:
        jobs = (awaited(generator, question(n % 7), 2) for n in range(40))
        return list(await asyncio.gather(*jobs))

    got = asyncio.run(crowd())
    assert all(one.error is None for one in got)
    for place, one in enumerate(got):
        assert one.usage.prompt_tokens == got[place % 7].usage.prompt_tokens
        assert one.text == got[place % 7].text or not can.deterministic


def test_the_engine_works_inside_a_running_loop(generator: Any, can: Any) -> None:
    async def inside() -> Any:
        if can.stream:
            assert streamed(generator, question(1), 2)
        return answer(generator, question(1), 2)

    assert asyncio.run(inside()).error is None


def test_loops_may_come_and_go(generator: Any) -> None:
    for _ in range(3):
        got = asyncio.run(awaited(generator, question(1), 2))
        assert got.error is None
