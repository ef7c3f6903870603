"""Claude over Anthropic's Messages API."""

from memserve.http.room import HttpRoom

backend = HttpRoom("anthropic", __name__)
