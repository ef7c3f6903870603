"""LangChain's own standard tests, over the endpoint; test_oracles.py runs them, in a process of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from extras import need
from talker import running

if TYPE_CHECKING:
    from collections.abc import Iterator

integration = need("langchain_tests.integration_tests", "oracles")
openai = need("langchain_openai", "oracles")


class TestChat(integration.ChatModelIntegrationTests):
    """Over an engine that can all that the protocol knows."""

    @pytest.fixture(autouse=True, scope="class")
    def _served(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with running() as found:
            request.cls.where = {"base_url": found.base_url, "api_key": "k", "model": "talker-1"}
            yield

    where: ClassVar[dict[str, Any]] = {}

    @property
    def chat_model_class(self) -> Any:
        return openai.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.where, "stream_usage": True}


class TestVectors(integration.EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True, scope="class")
    def _served(self, request: pytest.FixtureRequest) -> Iterator[None]:
        with running() as found:
            request.cls.where = {"base_url": found.base_url, "api_key": "k", "model": "lengths"}
            yield

    where: ClassVar[dict[str, Any]] = {}

    @property
    def embeddings_class(self) -> Any:
        return openai.OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {**self.where, "check_embedding_ctx_length": False}
