"""Fixtures: the engines under test, opened once, and what to ask them."""

from collections.abc import Iterator
from typing import Any

import pytest

from memserve.conformance.asking import Oracle
from memserve.conformance.report import CAPABILITIES, Target
from memserve.protocol import Capabilities, Task


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Collected by chance, with a whole package: without its options the suite has nothing to judge."""
    return None if config.pluginmanager.has_plugin("memserve-report") else True


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> Target:
    """What the command line asks to be judged."""
    return Target.from_config(request.config)


def _opened(request: pytest.FixtureRequest, target: Target, task: Task) -> Iterator[Any]:
    if task not in target.tasks():
        pytest.skip(f"capability tasks: {task} is not what this model and backend are for")
    opener = {"generate": target.generator, "embed": target.embedder, "rerank": target.reranker}[task]
    held = opener()
    request.config.stash[CAPABILITIES][task] = held.capabilities
    yield held
    held.close()


@pytest.fixture(scope="session")
def generator(request: pytest.FixtureRequest, target: Target) -> Iterator[Any]:
    """The generator under test, shared by all tests."""
    yield from _opened(request, target, "generate")


@pytest.fixture(scope="session")
def reference(generator: Any, target: Target) -> Iterator[Any]:
    """The same model elsewhere, which the generator under test is compared with."""
    held = target.reference()
    if held is None:
        pytest.skip("capability model: no --reference to compare it with")
    yield held
    held.close()


@pytest.fixture(scope="session")
def embedder(request: pytest.FixtureRequest, target: Target) -> Iterator[Any]:
    """The embedder under test."""
    yield from _opened(request, target, "embed")


@pytest.fixture(scope="session")
def reranker(request: pytest.FixtureRequest, target: Target) -> Iterator[Any]:
    """The reranker under test."""
    yield from _opened(request, target, "rerank")


@pytest.fixture
def can(generator: Any) -> Capabilities:
    """What the generator under test says it can do."""
    return generator.capabilities  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def oracle(target: Target) -> Oracle | None:
    """The checkpoint's own tokenizer and template, where there is a folder to read them from."""
    return Oracle.of(target.folder)
