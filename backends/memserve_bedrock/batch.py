"""Batch inference: lines go to S3, a job reads them there, and writes its own beside them."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from memserve.errors import BadRequest, InvalidInput, MemserveError, NotFound
from memserve.http import HttpClient, HttpEngine, Mask, connect, known_errors
from memserve.http.body import bad
from memserve.http.chat import encode
from memserve.http.engine import answer_of, body_of, error_of, first_answers, object_of, rows, said
from memserve.protocol import Completion, Request
from memserve_bedrock.engine import Signature, reader, refine

_ENDED = ("Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired")


@dataclass(frozen=True)
class Place:
    """Where in S3 the lines lie, and the role by which Bedrock reads and writes there."""

    uri: str
    role: str

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Place":
        """From the options; refused where one is missing."""
        uri, role = str(options.get("batch_uri") or ""), str(options.get("batch_role") or "")
        bucket = uri.removeprefix("s3://").partition("/")[0]
        if not uri.startswith("s3://") or not bucket or not role.startswith("arn:"):
            raise InvalidInput(
                "a batch on Bedrock needs batch_uri=s3://BUCKET/PREFIX and batch_role=ARN",
                hint="--options batch_uri=s3://bucket/memserve batch_role=arn:aws:iam::1234:role/name",
            )
        return cls(uri.rstrip("/"), role)

    def route(self, name: str) -> str:
        """The path of an object below the store's address."""
        return quote(f"{self.uri.removeprefix('s3://')}/{name}", safe="/-_.~")


class Batches:
    """Jobs of one model; each is found by its name, and created once by its token."""

    batch_limits = (5000, 32 << 20)
    batch_least = 100
    """Of records in a job (docs.aws.amazon.com/bedrock quotas: minimum number of records per batch job)."""

    def __init__(self, engine: HttpEngine, control: HttpClient, store: HttpClient, place: Place) -> None:
        self._engine, self._control, self._store, self._place = engine, control, store, place

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Put the lines, then create the job; doing both again with the same name makes no second one."""
        lines = [
            encode({"recordId": own, "modelInput": body_of(self._engine, one)})
            for own, one in requests.items()
        ]
        url = self._store.address.url(self._place.route(f"{name}.jsonl"))
        put = self._store.call(url, b"\n".join(lines) + b"\n", method="PUT")
        await self._store.fetch(put, lambda words, headers: None)
        wanted = {
            "jobName": _job(name), "clientRequestToken": name, "roleArn": self._place.role,
            "modelId": self._engine.capabilities.model, "modelInvocationType": "Converse",
            "inputDataConfig": {"s3InputDataConfig": {"s3Uri": f"{self._place.uri}/{name}.jsonl",
                                                      "s3InputFormat": "JSONL"}},
            "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": f"{self._place.uri}/"}},
        }  # fmt: skip
        url = self._control.address.url("model-invocation-job")
        made = await self._control.fetch(self._control.call(url, encode(wanted)), object_of, retried=False)
        if not isinstance(made.get("jobArn"), str):
            raise bad("the answer has no jobArn")
        return str(made["jobArn"])

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The job of that name."""
        found = await self._get(f"model-invocation-jobs?nameContains={_job(name)}")
        jobs = (row for row in found.get("invocationJobSummaries") or () if row.get("jobName") == _job(name))
        return next((str(row["jobArn"]) for row in jobs), None)

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        return (await self._about(identity)).get("status") in _ENDED

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError]:  # fmt: skip
        """What the job wrote; one that is not there was not asked."""
        found = await self._about(identity)
        if found.get("status") == "Failed":
            return dict.fromkeys(requests, BadRequest(f"the batch was refused: {found.get('message')}"))
        if found.get("status") == "Expired":  # before it began
            return {}
        name = str(found.get("jobName")).removeprefix(_job(""))
        place = self._place.route(f"{identity.rpartition('/')[2]}/{name}.jsonl.out")
        call = self._store.call(self._store.address.url(place), None, method="GET")
        try:
            lines = await self._store.fetch(call, rows)
        except NotFound:  # it was stopped before it began
            return {}
        named = [(own, line) for line in lines if (own := str(line.get("recordId"))) in requests]
        return first_answers((own, said(self._told, requests[own], line)) for own, line in named)

    def close(self) -> None:
        """Close the connections."""
        self._control.close()
        self._store.close()

    def _told(self, request: Request, line: Mapping[str, Any]) -> Completion | MemserveError:
        if line.get("modelOutput") is not None:
            return answer_of(self._engine, request, json.dumps(line["modelOutput"]))
        error: Any = line.get("error") or {}
        return error_of(self._control, error.get("errorCode"), {"message": str(error.get("errorMessage"))})

    async def _about(self, identity: str) -> dict[str, Any]:
        return await self._get(f"model-invocation-job/{quote(identity, safe='')}")

    async def _get(self, path: str) -> dict[str, Any]:
        call = self._control.call(self._control.address.url(path), None, method="GET")
        return await self._control.fetch(call, object_of)


def _job(name: str) -> str:
    return f"memserve-{name}"


def opened(engine: HttpEngine, options: Mapping[str, Any], region: str | None, mask: Mask) -> Batches:
    """The service of an engine's model; its calls are signed with a key pair, as S3 asks."""
    place = Place.of(options)
    if not region:
        raise InvalidInput("Bedrock needs a region", hint="pass region= or set AWS_REGION")

    def reach(service: str) -> HttpClient:
        names = (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL")
        url = next((os.environ[name] for name in names if os.environ.get(name)), None)
        url = url or f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
        signer = Signature(reader(options), region, mask, service)
        return connect(url, signer, options, mask=mask, errors=known_errors(__file__, refine))

    return Batches(engine, reach("bedrock"), reach("s3"), place)
