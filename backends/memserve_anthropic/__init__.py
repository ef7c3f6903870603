"""Claude over Anthropic's Messages API."""

from memserve.http.backend import HttpBackend

backend = HttpBackend("anthropic", __name__)
