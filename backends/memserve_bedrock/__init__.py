"""Amazon Bedrock's Converse, for every model that it serves."""

from memserve.http.engine import HttpBackend

backend = HttpBackend(
    "bedrock", __name__, keys=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
)
