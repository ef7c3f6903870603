"""From opening to closing: nothing leaks between callers, nothing runs on, no key is shown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from memserve.conformance.asking import (
    answer,
    awaited,
    heat,
    limited,
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
    worded,
)
from memserve.errors import Closed, MemserveError

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


async def _at_once(generator: Any, jobs: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
    return list(await asyncio.gather(*(awaited(generator, p, **s) for p, s in jobs)))


def test_each_request_keeps_its_max_tokens(generator: Any, can: Any) -> None:
    need(can, "max_tokens")
    limits = [1, 9, 3, 6]
    jobs = [(question(n, 3 + n), {"max_tokens": limit}) for n, limit in enumerate(limits)]
    got = asyncio.run(_at_once(generator, jobs))
    alone = [answer(generator, p, **s).usage.completion_tokens for p, s in jobs]
    for one, limit, count in zip(got, limits, alone, strict=True):
        used = one.usage.completion_tokens
        assert used is None or used <= limit
        if generator.capabilities.deterministic:
            assert used == count


def test_each_request_keeps_its_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    cutting: dict[str, Any] = {"max_tokens": 24, "stop": [stop]}
    jobs = [(prompt, cutting), (prompt, {"max_tokens": 24})]
    cut, whole = asyncio.run(_at_once(generator, jobs))
    assert whole.text == free.text
    assert cut.text == free.text[: free.text.find(stop)]


def test_sampling_beside_greedy_leaves_greedy_alone(generator: Any, can: Any) -> None:
    need(can, "deterministic", "temperature")
    prompt = question(6)
    alone = answer(generator, prompt, 10).text
    hot = {"max_tokens": 10, "temperature": heat(generator)}
    got = asyncio.run(_at_once(generator, [(prompt, hot), (prompt, {"max_tokens": 10}), (prompt, hot)]))
    assert got[1].text == alone


def test_each_request_keeps_its_seed(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    prompt = question(7)
    settings: list[dict[str, Any]] = [
        {"max_tokens": 8, "temperature": 1.0, "seed": seed} for seed in (11, 12, 13)
    ]
    alone = [answer(generator, prompt, **s).text for s in settings]
    together = asyncio.run(_at_once(generator, [(prompt, s) for s in settings]))
    assert [one.text for one in together] == alone


def test_threads_do_not_mix_answers(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = [question(n) for n in range(4)]
    alone = [answer(generator, prompt, 6).text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: answer(generator, prompt, 6).text, prompts))
    assert together == alone


def test_one_failure_spares_its_neighbours(generator: Any, can: Any) -> None:
    need(can, "context")
    endless = "word " * (int(can.context) + 8)
    got = answer(generator, [question(1), endless, question(2)], 4, on_error="return")
    assert [one.error is None for one in got] == [True, False, True]
    assert isinstance(got[1].error, MemserveError)
    assert got[1].text is None


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


def test_awaiting_leaves_the_loop_free(generator: Any, can: Any) -> None:
    async def watch() -> bool:
        task, begin, longest = (
            asyncio.create_task(awaited(generator, question(1), 160)), time.monotonic(), 0.0,
        )  # fmt: skip
        while not task.done():
            last = time.monotonic()
            await asyncio.sleep(0.002)
            longest = max(longest, time.monotonic() - last)
        took = time.monotonic() - begin
        return took < 0.04 or longest < 0.7 * took

    if can.context and can.context < 400:
        pytest.skip("capability context: too small for an answer that takes its time")
    assert any(asyncio.run(watch()) for _ in range(3)), "the event loop stood still while an answer was made"


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


CANARY = "sk-canary-3f9a61c07d2b48e5"


def _secrets(target: Any) -> list[str]:
    named = [v for k, v in target.options.items() if re.search("key$|token$|secret|password", k)]
    known = [v for k, v in os.environ.items() if re.search("_(API_KEY|SECRET|TOKEN|PASSWORD)$", k)]
    return [CANARY, *(v for v in named + known if isinstance(v, str) and len(v) >= 12)]


@pytest.fixture
def keyed(target: Any, generator: Any) -> Iterator[Any]:
    """A generator that was opened with a key, where the backend takes one."""
    try:
        held = target.generator(api_key=CANARY)
    except (MemserveError, TypeError) as error:
        assert CANARY not in repr(error) + str(error)
        pytest.skip("capability backend: it takes no key")
    yield held
    held.close()


def _seen(held: Any) -> str:
    public = {name: getattr(held, name, None) for name in dir(held) if not name.startswith("_")}
    return repr(held) + str(held) + repr(held.capabilities) + repr(public)


def test_what_people_see_holds_no_secret(target: Any, generator: Any) -> None:
    seen = _seen(generator)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def _told(held: Any, prompt: str, **settings: Any) -> str:
    try:
        return repr(answer(held, prompt, 2, **settings))
    except MemserveError as error:
        return repr(error) + str(error) + repr(vars(error))


def test_a_key_is_shown_nowhere(target: Any, keyed: Any) -> None:
    shown = [_seen(keyed), repr(keyed.identity) if hasattr(keyed, "identity") else ""]
    shown += [_told(keyed, "x"), _told(keyed, "x", temperature=-1), _told(keyed, "word " * 50_000)]
    assert [secret for secret in _secrets(target) if any(secret in place for place in shown)] == []


def test_an_embedder_shows_no_secret(target: Any, embedder: Any) -> None:
    seen = _seen(embedder)
    assert [secret for secret in _secrets(target) if secret in seen] == []


def test_errors_hold_no_secret(target: Any, generator: Any) -> None:
    with pytest.raises(MemserveError) as caught:
        answer(generator, "x", top_p=-1)
    assert [secret for secret in _secrets(target) if secret in repr(caught.value) + str(caught.value)] == []


def test_the_generator_names_its_backend_in_one_line(target: Any, generator: Any) -> None:
    assert "\n" not in repr(generator)
    assert len(repr(generator)) < 300
    assert generator.capabilities.backend in repr(generator)


def test_answers_are_values(generator: Any) -> None:
    got = answer(generator, question(1), 3)
    assert pickle.loads(pickle.dumps(got)) == got
    with pytest.raises(AttributeError):
        got.text = "forged"


def test_capabilities_are_a_value(generator: Any) -> None:
    assert generator.capabilities == generator.capabilities
    with pytest.raises(AttributeError):
        generator.capabilities.seed = True
