"""Amazon Bedrock's Converse, for every model that it serves."""

from memserve.http.backend import HttpBackend

backend = HttpBackend("bedrock", __name__)
