"""Everything that speaks OpenAI's dialect over HTTP: OpenAI, vLLM, SGLang, TEI, Ollama, llama.cpp."""

from memserve.http.room import HttpRoom

backend = HttpRoom("openai", __name__)
