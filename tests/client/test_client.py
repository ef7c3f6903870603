"""One client layer over two kinds of engine: both behave alike."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import memserve
from memserve import Raw, Request, errors, registry
from memserve.protocol import Capabilities, Completion, Delta, Embeddings, Ranking

KNOWN = Capabilities(
    backend="toy",
    model="m",
    chat=True,
    temperature=True,
    top_p=True,
    max_tokens=True,
    stop=True,
    raw=True,
    token_ids=True,
    stream=True,
    n=True,
    logprobs=5,
    tasks=frozenset({"generate", "embed", "rerank"}),
)


class Batch:
    capabilities = KNOWN

    def __init__(self):
        self.batches, self.closed, self.busy, self.overlapped = [], 0, False, False

    def generate(self, requests):
        self.overlapped |= self.busy
        self.busy = True
        self.batches.append(len(requests))
        time.sleep(0.002)
        answers = [self.answer(request) for request in requests]
        self.busy = False
        return answers

    @staticmethod
    def answer(request):
        if request.prompt == "broken":
            return Completion(text=None, error=errors.EngineFailed("this one broke"))
        if request.prompt == "crash":
            raise RuntimeError("CUDA error")
        return Completion(text=f"{request.prompt}/{request.max_tokens}", finish_reason="stop")

    def stream(self, request):
        yield Delta("a")
        if request.prompt == "crash":
            raise RuntimeError("CUDA error")
        yield Delta("b", "stop")

    def close(self):
        self.closed += 1


class Awaited:
    capabilities = KNOWN

    def __init__(self):
        self.closed, self.flying, self.most, self.loops = 0, 0, 0, set()

    async def complete(self, request):
        self.loops.add(asyncio.get_running_loop())
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0.5 if request.prompt == "slow" else 0.002)
        finally:
            self.flying -= 1
        answer = Batch.answer(request)
        if answer.error:
            raise answer.error
        return answer

    async def astream(self, request):
        for delta in Batch.stream(None, request):
            await asyncio.sleep(0)
            yield delta

    async def aclose(self):
        self.closed += 1


class Native(Awaited):
    any_loop = True


class Toy:
    """What an entry point resolves to."""

    capabilities = KNOWN

    def __init__(self, engine):
        self.engine = engine
        self.opened = []

    def open(self, model=None, *, task="generate", **options):
        self.opened.append((model, task, options))
        return self.engine


@pytest.fixture(params=[Batch, Awaited, Native])
def engine(request):
    return request.param()


@pytest.fixture
def toy(engine, monkeypatch):
    backend = Toy(engine)
    monkeypatch.setattr(registry, "find", lambda name: backend)
    return backend


@pytest.fixture
def generator(toy):
    with memserve.generator("m", backend="toy", concurrency=8) as opened:
        yield opened


TALK = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("prompt", ["hi", Raw("hi"), TALK, (1, 2), [1, 2], np.array([1, 2])])
def test_one_prompt_gives_one_answer(prompt, generator):
    assert isinstance(generator.generate(prompt), Completion)


@pytest.mark.parametrize(
    ("prompts", "count"),
    [
        ([], 0),
        (["a"], 1),
        ([TALK, TALK], 2),
        ([[1, 2], [3]], 2),
        (["a", Raw("b"), TALK, [1]], 4),
        (("a", "b"), 2),
        (dict.fromkeys("abc").keys(), 3),
        ([TALK], 1),
        ([Request(prompt="a")], 1),
        (np.array([[1, 2], [3, 4]]), 2),
    ],
)
def test_a_list_of_prompts_gives_a_list(prompts, count, generator):
    answers = generator.generate(prompts)
    assert isinstance(answers, list)
    assert len(answers) == count


@pytest.mark.parametrize(
    "prompt",
    [
        None, 3, b"bytes", {"role": "user", "content": "hi"}, [1, "a"], [TALK[0], "a"], [None], [[]], [True],
        [{"content": "no role"}], [{"role": "user"}], [{"role": "user", "content": 3}], [-1], "half \ud800",
        [{"role": "user", "content": [{"text": "no type"}]}], Raw(3), [["a"]],
    ],
)  # fmt: skip
def test_malformed_prompts_are_refused(prompt, generator):
    with pytest.raises(errors.InvalidInput):
        generator.generate(prompt)


@pytest.mark.parametrize("opens", [memserve.generator, memserve.embedder, memserve.reranker])
def test_what_is_no_option_of_a_backend_is_refused(opens):
    for name in ("task", *(["model"] if opens is memserve.generator else [])):
        with pytest.raises(errors.InvalidInput, match=f"{name}= is no option"):
            opens("m", backend="openai", base_url="http://127.0.0.1:9/v1", **{name: "generate"})


def test_what_the_backend_cannot_take_is_refused(generator):
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    for call in (lambda: generator.generate(picture), lambda: generator.generate("a", seed=1),
                 lambda: generator.generate("a", n=1, logprobs=6), lambda: generator.score([("a", "b")]),
                 lambda: generator.count_tokens("a")):  # fmt: skip
        with pytest.raises(errors.Unsupported, match="toy"):
            call()


def test_a_thousand_answers_keep_their_order(generator):
    answers = generator.generate([str(i) for i in range(1000)])
    assert [answer.text for answer in answers] == [f"{i}/512" for i in range(1000)]


def test_requests_bring_their_own_settings(generator):
    answers = generator.generate([Request(prompt="a", max_tokens=7), Request(prompt="b"), "c"], max_tokens=9)
    assert [answer.text for answer in answers] == ["a/7", "b/9", "c/9"]


def test_prepare_fills_the_defaults_in(generator):
    request = generator.prepare("a", stop="x")
    assert (request.temperature, request.top_p, request.max_tokens, request.stop) == (0.0, 1.0, 512, ("x",))


def test_an_engine_may_fill_max_tokens_itself(toy, engine):
    engine.fills_max_tokens = True
    with memserve.generator("m", backend="toy") as generator:
        assert generator.prepare("a").max_tokens is None


def test_one_failure_is_raised_or_returned(generator):
    with pytest.raises(errors.EngineFailed, match="this one broke"):
        generator.generate(["a", "broken", "c"])
    answers = generator.generate(["a", "broken", [], "c"], on_error="return")
    assert [answer.text for answer in answers] == ["a/512", None, None, "c/512"]
    assert [type(answer.error) for answer in answers[1:3]] == [errors.EngineFailed, errors.InvalidInput]


def test_a_crash_inside_an_engine_has_its_place_in_the_tree(generator):
    with pytest.raises(errors.EngineFailed, match="CUDA error"):
        generator.generate("crash")
    assert isinstance(generator.generate(["crash"], on_error="return")[0].error, errors.EngineFailed)
    with pytest.raises(errors.EngineFailed, match="CUDA error"):
        list(generator.stream("crash"))


def test_streams(generator):
    assert [delta.text for delta in generator.stream("x")] == ["a", "b"]
    half = generator.stream("x")
    assert next(half).text == "a"
    half.close()


async def test_awaited(generator):
    assert (await generator.agenerate("a")).text == "a/512"
    answers = await asyncio.gather(*(generator.agenerate(str(i)) for i in range(100)))
    assert [answer.text for answer in answers] == [f"{i}/512" for i in range(100)]
    assert [answer.text for answer in await generator.agenerate(["a", "b"])] == ["a/512", "b/512"]
    assert [delta.text async for delta in generator.astream("x")] == ["a", "b"]
    assert generator.generate("sync inside a running loop").text
    with pytest.raises(errors.EngineFailed):
        await generator.agenerate("broken")


def test_single_awaits_make_full_batches(generator, engine):
    async def many():
        await asyncio.gather(*(generator.agenerate("a") for _ in range(64)))

    asyncio.run(many())
    if isinstance(engine, Batch):
        assert max(engine.batches) == 8
        assert not engine.overlapped
    else:
        assert 4 <= engine.most <= 8


def test_an_engine_stays_on_one_loop_unless_it_says_otherwise(generator, engine):
    for _ in range(2):
        asyncio.run(_one(generator))
    generator.generate("a")
    if isinstance(engine, Native):
        assert len(engine.loops) == 3
    elif isinstance(engine, Awaited):
        assert len(engine.loops) == 1


async def _one(generator):
    return await generator.agenerate("a")


def test_threads_may_share_a_generator(generator):
    texts = []

    def work(i):
        texts.append(generator.generate(str(i)).text)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert sorted(texts) == sorted(f"{i}/512" for i in range(16))


def test_the_end(toy, engine):
    before = threading.active_count()
    generator = memserve.generator("m", backend="toy")
    generator.generate(["a", "b"])
    asyncio.run(_one(generator))
    assert "closed" not in repr(generator)
    generator.close()
    generator.close()
    assert engine.closed == 1
    assert "closed" in repr(generator)
    assert threading.active_count() <= before + 2
    for call in (lambda: generator.generate("a"), lambda: generator.stream("a"),
                 lambda: generator.prepare("a"),
                 generator.__enter__):  # fmt: skip
        with pytest.raises(errors.Closed):
            call()
    assert generator.capabilities.backend == "toy"


def test_a_forgotten_generator_closes_itself(toy, engine):
    generator = memserve.generator("m", backend="toy")
    generator.generate("a")
    del generator
    gc.collect()
    assert engine.closed == 1


async def test_async_context_manager(toy, engine):
    async with memserve.generator("m", backend="toy") as generator:
        await generator.agenerate("a")
    assert engine.closed == 1


def test_options_reach_the_backend(toy):
    memserve.generator("m", backend="toy", dtype="float16").close()
    assert toy.opened == [("m", "generate", {"dtype": "float16"})]


class Plan:
    backend = "toy"

    def to_dict(self):
        return {"model": {"id": "org/m"}, "plan": {"backend": "toy", "tensor_parallel": 2}}


def test_a_plan_is_opened(toy):
    toy.plan_options = lambda plan: {"tensor_parallel": plan["plan"]["tensor_parallel"], "model": "org/m-awq"}
    memserve.generator(Plan(), tensor_parallel=4).close()
    assert toy.opened == [("org/m-awq", "generate", {"tensor_parallel": 4})]


@pytest.mark.parametrize("model", [3, object(), ["m"]])
def test_what_is_no_model(model, toy):
    with pytest.raises(errors.InvalidInput):
        memserve.generator(model)


def test_unknown_backends_name_their_neighbours():
    with pytest.raises(errors.UnknownName, match="openai"):
        memserve.generator("m", backend="opnai")


class Vectors:
    capabilities = Capabilities(
        backend="toy", tasks=frozenset({"embed", "rerank"}), roles=frozenset({"query"}), dimensions=True
    )
    vectors = np.ones((2, 3), np.float32)

    def embed(self, texts, *, role, normalize, dimensions):
        return Embeddings(self.vectors)

    def rerank(self, query, documents):
        return Ranking((0.5,) * 2)


def test_the_embedder_proves_what_it_hands_on(monkeypatch):
    engine = Vectors()
    toy = Toy(engine)
    toy.capabilities = engine.capabilities
    monkeypatch.setattr(registry, "find", lambda name: toy)
    with memserve.embedder("e", backend="toy") as embedder:
        assert embedder.embed(["a", "b"], role="query").vectors.shape == (2, 3)
        assert len(embedder.embed([]).vectors) == 0
        for texts, settings in ((["a"], {}), (["a", "b"], {"dimensions": 2})):
            with pytest.raises(errors.EngineFailed, match="shape"):
                embedder.embed(texts, **settings)
        for settings in ({"role": "document"}, {"normalize": True}):
            with pytest.raises(errors.Unsupported):
                embedder.embed(["a", "b"], **settings)
        engine.vectors = np.full((2, 3), np.nan, np.float32)
        with pytest.raises(errors.EngineFailed, match="finite"):
            embedder.embed(["a", "b"])
        assert asyncio.run(_none(embedder)) == 0
    with memserve.reranker("r", backend="toy") as reranker:
        assert reranker.rerank("q", ["a", "b"]).scores == (0.5, 0.5)
        with pytest.raises(errors.EngineFailed):
            reranker.rerank("q", ["a"])
        with pytest.raises(errors.InvalidInput):
            reranker.rerank("q", "one string")
    with pytest.raises(errors.Unsupported, match="generate"):
        memserve.generator("m", backend="toy")


async def _none(embedder):
    return len((await embedder.aembed([])).vectors)


@pytest.mark.parametrize(
    "pair", [(1, 2), (None, "a"), ("a", 3), ([1, "b"], "a"), ("a", [1, "b"]), ("a\ud800", "b"), ("a",), "ab"]
)
def test_what_is_no_pair_of_texts_is_refused(generator, engine, pair):
    engine.capabilities = replace(KNOWN, score=True)
    with pytest.raises(errors.InvalidInput, match=r"score|pair"):
        generator.score([pair])


@pytest.mark.parametrize("prompt", [None, 3, b"x", "half a \ud800"])
def test_what_is_no_prompt_is_not_counted(generator, engine, prompt):
    engine.capabilities = replace(KNOWN, count_tokens=True)
    with pytest.raises(errors.InvalidInput, match="a prompt"):
        generator.count_tokens(prompt)


@pytest.mark.parametrize("texts", [None, 3, b"x", ["half a \ud800"], [None]])
def test_what_is_no_text_is_neither_embedded_nor_ranked(toy, texts):
    with memserve.embedder("m", backend="toy") as embedder, pytest.raises(errors.InvalidInput):
        embedder.embed(texts)
    with memserve.reranker("m", backend="toy") as reranker, pytest.raises(errors.InvalidInput):
        reranker.rerank("query", texts)
