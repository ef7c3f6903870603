"""The program that the crash tests kill: python client.py REQUESTS OUTPUT URL [SECONDS_BETWEEN_REQUESTS]"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import memserve.run
from memserve.protocol import Capabilities, Completion, Usage


class Client:
    capabilities = Capabilities(backend="client", model="m")

    def __init__(self, url):
        self.address = urlsplit(url)
        self.own = threading.local()

    def generate(self, prompt, **settings):
        if not hasattr(self.own, "connection"):
            self.own.connection = http.client.HTTPConnection(self.address.netloc, timeout=10)
        body = json.dumps({"messages": [{"role": "user", "content": prompt}]})
        headers = {"Content-Type": "application/json"}
        self.own.connection.request("POST", f"{self.address.path}/chat/completions", body, headers)
        answer = json.loads(self.own.connection.getresponse().read())
        usage = answer["usage"]
        return Completion(
            text=answer["choices"][0]["message"]["content"], finish_reason="stop",
            usage=Usage(usage["prompt_tokens"], usage["completion_tokens"]),
        )  # fmt: skip


def requests(path, pause):
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        time.sleep(pause)
        yield json.loads(line)


if __name__ == "__main__":
    path, output, url, pause = [*sys.argv[1:4], *(sys.argv[4:] or ["0"])]
    print(memserve.run.run(requests(path, float(pause)), output, generator=Client(url), concurrency=8))
