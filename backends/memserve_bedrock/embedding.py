"""Embeddings: InvokeModel, with the body that each family of models takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from memserve.client.vectors import VectorEngine, refuse_bare
from memserve.errors import Unsupported
from memserve.http import Call, HttpClient
from memserve.http.chat import encode
from memserve.protocol import Capabilities
from memserve_bedrock.ask import embedders

_TOKENS = "x-amzn-bedrock-input-token-count"


class EmbedEngine(VectorEngine):
    """Asks {base_url}/model/{id}/invoke."""

    def __init__(self, client: HttpClient, model: str) -> None:
        row = next((row for row in embedders() if re.search(row["pattern"], model, re.IGNORECASE)), None)
        if row is None:
            raise Unsupported("bedrock", f"the task embed with {model}", "known are Titan's and Cohere's")
        self._body, self._roles = row["body"], row.get("roles", {})
        self._may_be_bare = "$normalize" in self._body.values()
        self.items = row["items"]
        known = Capabilities(
            backend="bedrock", model=model, tasks=frozenset({"embed"}), normalize=True, cancel=True,
            roles=frozenset(self._roles), dimensions="$dimensions" in str(self._body),
        )  # fmt: skip
        super().__init__(client, known)
        self._url = client.address.url(f"model/{quote(model, safe='')}/invoke")

    def write(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Call:  # fmt: skip
        if not self._may_be_bare:
            refuse_bare("bedrock", normalize)
        values = {
            "$texts": list(texts), "$text": texts[0], "$normalize": normalize, "$dimensions": dimensions,
            "$role": self._roles.get(role or "document"),
        }  # fmt: skip
        return self._client.call(self._url, encode(_filled(self._body, values)))

    def read(self, found: Any, headers: Mapping[str, str]) -> tuple[Any, Any]:
        known = found if isinstance(found, dict) else {}
        rows = known.get("embeddings", [known.get("embedding")])
        if isinstance(rows, dict):
            rows = rows.get("float")
        if isinstance(rows, list):
            rows = [row.get("embedding") if isinstance(row, dict) else row for row in rows]
        counted = headers.get(_TOKENS, "")
        return rows, known.get("inputTextTokenCount", int(counted) if counted.isdigit() else None)


def _filled(form: Any, values: Mapping[str, Any]) -> Any:
    """A body with what it asks for; a field whose value nobody gave is left out."""
    if isinstance(form, dict):
        filled = {name: _filled(part, values) for name, part in form.items()}
        return {name: value for name, value in filled.items() if value is not None}
    return values.get(form, form) if isinstance(form, str) else form
