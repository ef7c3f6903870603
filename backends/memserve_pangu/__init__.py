"""Huawei Pangu over HTTP: the Pangu inference API (V1), its OpenAI format (V2), IAM, AppCode and AK/SK."""

from memserve.http.engine import HttpBackend

backend = HttpBackend(
    "pangu", __name__, keys=("PANGU_API_KEY", "PANGU_APP_CODE", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"),
    closed=True,
)  # fmt: skip
