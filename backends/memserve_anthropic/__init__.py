"""Claude over Anthropic's Messages API."""

from memserve.http.engine import HttpBackend

backend = HttpBackend("anthropic", __name__, keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"), closed=True)
