"""Huawei Pangu over HTTP: the Pangu inference API (V1), its OpenAI format (V2), IAM, AppCode and AK/SK."""

from memserve.http.room import HttpRoom

backend = HttpRoom("pangu", __name__)
