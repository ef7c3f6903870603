"""Everything that speaks OpenAI's dialect over HTTP: OpenAI, vLLM, SGLang, TEI, Ollama, llama.cpp."""

from memserve.http.engine import HttpBackend

backend = HttpBackend("openai", __name__, keys=("OPENAI_API_KEY",))
