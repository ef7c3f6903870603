"""The batch service: a file of lines goes up, files of answers and of errors come down."""

import json
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from memserve.errors import BadRequest, MemserveError, Unsupported
from memserve.http import HttpClient, HttpEngine
from memserve.http.body import bad
from memserve.http.chat import encode
from memserve.http.engine import answer_of, body_of, error_of, first_answers, object_of, rows, said
from memserve.protocol import Completion, Request

_ENDED = ("completed", "failed", "expired", "cancelled")
_MARK = "memserve"
_EARLIER = 7 * 86400.0
"""Seconds that the server's clock may be behind ours, which may have jumped since."""


class Batches:
    """Batches of one model; each is found again by a mark in its metadata."""

    batch_limits = (5000, 32 << 20)
    """Requests and characters: the service takes ten times as many, but answers are held in memory."""
    batch_least = 1

    def __init__(self, client: HttpClient, engine: HttpEngine) -> None:
        self._client = client
        self._engine = engine

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Upload the lines and create the batch; its id."""
        route, lines = self.written(requests)
        uploaded = await self._post("files", *_form(lines), retried=True)
        wanted = {"input_file_id": uploaded["id"], "endpoint": route, "completion_window": "24h",
                  "metadata": {_MARK: name}}  # fmt: skip
        created = await self._post("batches", encode(wanted), {"Idempotency-Key": name}, retried=False)
        return str(created["id"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The id of the batch with this mark."""
        after = ""
        while True:
            page = await self._get(f"batches?limit=100{after}")
            for row in page.get("data") or ():
                if (row.get("metadata") or {}).get(_MARK) == name:
                    return str(row["id"])
                if row.get("created_at", since) < since - _EARLIER:
                    return None
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after={page['data'][-1]['id']}"

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        return (await self._get(f"batches/{identity}")).get("status") in _ENDED

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError]:  # fmt: skip
        """What came of each request; one that is not there was not asked."""
        found = await self._get(f"batches/{identity}")
        if found.get("status") == "failed":
            refused: dict[str, Any] = next(iter((found.get("errors") or {}).get("data") or ()), {})
            return dict.fromkeys(requests, BadRequest(f"the batch was refused: {refused.get('message')}"))
        told: list[tuple[str, Completion | MemserveError]] = []
        for file in filter(None, (found.get("output_file_id"), found.get("error_file_id"))):
            call = self._client.call(self._client.address.url(f"files/{file}/content"), None, method="GET")
            told += self.read(await self._client.fetch(call, rows), requests)
        return first_answers(told)

    def written(self, requests: Mapping[str, Request]) -> tuple[str, bytes]:
        """The route of these requests, and their lines."""
        routes = {_route(self._engine.write(request, stream=False).url) for request in requests.values()}
        if len(routes) != 1:
            raise Unsupported("openai", "a batch of chat and of raw prompts")
        about = {"method": "POST", "url": (route := routes.pop())}
        lines = [
            encode({"custom_id": own, **about, "body": body_of(self._engine, request)})
            for own, request in requests.items()
        ]
        return route, b"\n".join(lines) + b"\n"

    def read(self, lines: Iterable[Mapping[str, Any]], requests: Mapping[str, Request],
             ) -> Iterator[tuple[str, Completion | MemserveError]]:  # fmt: skip
        """What lines of answers and of errors say of these requests."""
        for line in lines:
            own = str(line.get("custom_id"))
            if own in requests:
                yield own, said(self._told, requests[own], line)

    def _told(self, request: Request, line: Mapping[str, Any]) -> Completion | MemserveError:
        response: Any = line.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            return answer_of(self._engine, request, json.dumps(body))
        error: Any = line.get("error")  # vLLM puts what its server would have answered there
        whole = isinstance(error, dict) and "error" in error
        return error_of(self._client, status, body or (error if whole else {"error": error}))

    async def _get(self, path: str) -> dict[str, Any]:
        call = self._client.call(self._client.address.url(path), None, method="GET")
        return await self._client.fetch(call, object_of)

    async def _post(self, path: str, content: bytes, headers: Mapping[str, str], *,
                    retried: bool) -> dict[str, Any]:  # fmt: skip
        call = self._client.call(self._client.address.url(path), content, headers=headers)
        found = await self._client.fetch(call, object_of, retried=retried)
        if not isinstance(found.get("id"), str):
            raise bad("the answer has no id")
        return found


def _route(url: str) -> str:
    path = url.partition("?")[0]
    routes = ("/chat/completions", "/responses", "/completions")
    return "/v1" + next(route for route in routes if path.endswith(route))


def _form(lines: bytes) -> tuple[bytes, dict[str, str]]:
    """A form with the purpose and the file, and its headers."""
    edge = secrets.token_hex(16)
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    whole = head.encode() + lines + f"\r\n--{edge}--\r\n".encode()
    return whole, {"Content-Type": f"multipart/form-data; boundary={edge}"}
