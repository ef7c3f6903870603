"""Generation: generateContent, its stream, and countTokens."""

from collections.abc import Mapping

from memserve.http import Call, HttpClient, HttpEngine, StreamReader
from memserve.http.body import bad, parse
from memserve.http.chat import encode
from memserve.protocol import Completion, Prompt, Request
from memserve_gemini import answer, ask
from memserve_gemini.model import Model, capabilities


class GeminiEngine(HttpEngine):
    """Asks {base_url}/models/{model}:generateContent."""

    def __init__(self, client: HttpClient, model: Model) -> None:
        super().__init__(client, capabilities(model))
        self._model = model
        self._url = client.address.url(f"{model.path}:generateContent")
        self._stream_url = client.address.url(f"{model.path}:streamGenerateContent?alt=sse")
        self._count_url = client.address.url(f"{model.path}:countTokens")

    def write(self, request: Request, *, stream: bool) -> Call:
        payload = {**ask.prompt(request.prompt, self._model), **ask.settings(request, self._model)}
        return self._client.call(self._stream_url if stream else self._url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        return answer.completion(words, lambda failed: self._client.failed(failed, 200, headers), n=request.n)

    def reader(self, request: Request) -> StreamReader:
        return answer.ContentReader(lambda failed: self._client.failed(failed, 200, {}))

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, as the provider counts them; costs a request, and no money."""
        whole = {"model": self._model.path, **ask.prompt(prompt, self._model)}
        call = self._client.call(self._count_url, encode({"generateContentRequest": whole}))
        return await self._client.fetch(call, _count)


def _count(words: str, headers: Mapping[str, str]) -> int:
    found = parse(words)
    tokens = found.get("totalTokens") if isinstance(found, dict) else None
    if not isinstance(tokens, int):
        raise bad("the answer has no count of tokens")
    return tokens
