"""Google's Gemini API: generation and embeddings."""

from memserve.http.room import HttpRoom

backend = HttpRoom("gemini", __name__)
