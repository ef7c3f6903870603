"""Google's Gemini API: generation and embeddings."""

from memserve.http.engine import HttpBackend

backend = HttpBackend("gemini", __name__, keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"), closed=True)
