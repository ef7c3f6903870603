"""Batch mode: requests inline under a display name, by which a batch is found again."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from memserve.errors import MemserveError
from memserve.http import HttpClient, HttpEngine
from memserve.http.batch import answer_of, body_of, error_of, object_of
from memserve.http.chat import encode
from memserve.protocol import Completion, Request

_ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


class Batches:
    """Batches of one model."""

    batch_limits = (1000, 16 << 20)
    """Requests inline are 20 MB at most."""

    def __init__(self, client: HttpClient, engine: HttpEngine, model: str) -> None:
        self._client = client
        self._engine = engine
        self._model = model

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Create the batch; its name."""
        bodies = {own: body_of(self._engine, one) for own, one in requests.items()}
        inline = [{"request": body, "metadata": {"key": own}} for own, body in bodies.items()]
        wanted = {"display_name": name, "input_config": {"requests": {"requests": inline}}}
        found = await self._ask(f"{self._model}:batchGenerateContent", encode({"batch": wanted}))
        return str(found["name"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The name of the batch that is shown by ours."""
        page = ""
        while True:
            found = await self._ask(f"batches?pageSize=100{page}")
            for row in found.get("operations") or ():
                if (row.get("metadata") or {}).get("displayName") == name:
                    return str(row["name"])
            if not found.get("nextPageToken"):
                return None
            page = f"&pageToken={found['nextPageToken']}"

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        found = await self._ask(identity)
        return bool(found.get("done")) or str((found.get("metadata") or {}).get("state")).endswith(_ENDED)

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError]:  # fmt: skip
        """What came of each request; one that is not there was not asked."""
        found = await self._ask(identity)
        if found.get("error"):
            return {own: error_of(self._client, 200, found) for own in requests}
        rows = ((found.get("response") or {}).get("inlinedResponses") or {}).get("inlinedResponses") or ()
        named = {str((row.get("metadata") or {}).get("key")): row for row in rows}
        return {own: self._told(requests[own], row) for own, row in named.items() if own in requests}

    def _told(self, request: Request, row: Mapping[str, Any]) -> Completion | MemserveError:
        if "response" in row:
            return answer_of(self._engine, request, json.dumps(row["response"]))
        return error_of(self._client, 200, dict(row))

    async def _ask(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        url = self._client.address.url(path)
        call = self._client.call(url, content, method="POST" if content else "GET")
        return await self._client.fetch(call, object_of, retried=content is None)
