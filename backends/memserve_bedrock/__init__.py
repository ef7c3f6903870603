"""Amazon Bedrock's Converse, for every model that it serves."""

from memserve.http.room import HttpRoom

backend = HttpRoom("bedrock", __name__)
