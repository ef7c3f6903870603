"""What every HTTP backend stands on: one transport seam, server-sent events, retries, limits, secrets."""

from memserve.http.client import HttpClient, Pieces, Signer
from memserve.http.connect import OPTIONS, connect, refuse_rest
from memserve.http.engine import AnswerReader, HttpEngine, StreamReader
from memserve.http.failure import known_errors
from memserve.http.keys import StaticKey, key
from memserve.http.secret import Mask, Secret
from memserve.http.sse import Event, Parser
from memserve.http.transport import Answer, Call, Limits, Transport

__all__ = [
    "OPTIONS", "Answer", "AnswerReader", "Call", "Event", "HttpClient", "HttpEngine", "Limits", "Mask",
    "Parser", "Pieces", "Secret", "Signer", "StaticKey", "StreamReader", "Transport", "connect", "key",
    "known_errors", "refuse_rest",
]  # fmt: skip
