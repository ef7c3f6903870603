"""The Message Batches API. A batch carries no mark of ours: its requests' names do."""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from memserve.errors import MemserveError, ServerFailed
from memserve.http import HttpClient, HttpEngine
from memserve.http.batch import answer_of, body_of, error_of, object_of, rows
from memserve.http.chat import encode
from memserve.protocol import Completion, Request

_EARLIER = 120.0
"""Seconds that the server's clock may be behind ours."""


class Batches:
    """Batches of one model."""

    batch_limits = (5000, 32 << 20)

    def __init__(self, client: HttpClient, engine: HttpEngine, headers: Mapping[str, str]) -> None:
        self._client = client
        self._engine = engine
        self._headers = headers

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Create the batch; its id."""
        wanted = [{"custom_id": own, "params": body_of(self._engine, one)} for own, one in requests.items()]
        found = await self._ask("", encode({"requests": wanted}))
        return str(found["id"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The id of a batch that may be this one: as large, made since, and nobody else's."""
        after = ""
        while True:
            page = await self._ask(f"?limit=100{after}")
            for row in page.get("data") or ():
                if _made(row) < since - _EARLIER:
                    return None
                if row["id"] not in others and sum((row.get("request_counts") or {}).values()) == count:
                    return str(row["id"])
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after_id={page['data'][-1]['id']}"

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        return (await self._ask(f"/{identity}")).get("processing_status") == "ended"

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError] | None:  # fmt: skip
        """What came of each request; None: they are another batch's."""
        call = self._call(f"/{identity}/results")
        found = {row["custom_id"]: row.get("result") or {} for row in await self._client.fetch(call, rows)}
        if requests and not found.keys() & requests.keys():
            return None
        return {own: self._told(requests[own], result) for own, result in found.items() if own in requests}

    def _told(self, request: Request, result: Mapping[str, Any]) -> Completion | MemserveError:
        if result.get("type") == "succeeded":
            return answer_of(self._engine, request, json.dumps(result.get("message")))
        if result.get("type") == "errored":
            return error_of(self._client, 200, result.get("error"))
        return ServerFailed(f"the batch ended before this request was answered ({result.get('type')})")

    async def _ask(self, path: str, content: bytes | None = None) -> dict[str, Any]:
        return await self._client.fetch(self._call(path, content), object_of, retried=content is None)

    def _call(self, path: str, content: bytes | None = None) -> Any:
        url = self._client.address.url(f"messages/batches{path}")
        return self._client.call(url, content, method="POST" if content else "GET", headers=self._headers)


def _made(row: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(row.get("created_at")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return float("inf")
