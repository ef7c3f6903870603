"""The chat shape that OpenAI made common: written and read here for every backend that speaks it."""

from memserve.http.chat.answer import completion, failure_in
from memserve.http.chat.message_parts import encode, fill, messages
from memserve.http.chat.stream import ChatReader

__all__ = ["ChatReader", "completion", "encode", "failure_in", "fill", "messages"]
