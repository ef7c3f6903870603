"""Huawei Pangu over HTTP: the Pangu inference API (V1), its OpenAI format (V2), IAM, AppCode and AK/SK."""

from memserve.http.backend import HttpBackend

backend = HttpBackend("pangu", __name__)
