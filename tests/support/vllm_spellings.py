"""What a release of vLLM calls what memserve's dialect rows name: python vllm_spellings.py ROWS.json"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Any


def structured(row: dict[str, Any]) -> bool:
    """The class and the field exist, and take a schema, a regex and choices."""
    from vllm import sampling_params as home

    made = [
        getattr(home, row["class"])(**one)
        for one in ({"json": {"type": "object"}}, {"regex": "a+"}, {"choice": ["a"]})
    ]
    told = [home.SamplingParams(max_tokens=1, **{row["field"]: one}) for one in made]
    return all(getattr(one, row["field"]) is not None for one in told)


def pooling(row: dict[str, Any]) -> bool:
    """The engine has those arguments, and the parameters that ask for bare vectors are taken."""
    from vllm.engine.arg_utils import EngineArgs

    from vllm import PoolingParams

    known = {field.name for field in fields(EngineArgs)}
    told = PoolingParams(**row["bare"])
    return set(row["arguments"]) <= known and all(getattr(told, k) == v for k, v in row["bare"].items())


def _verdict(check: Any, row: dict[str, Any]) -> bool | str:
    try:
        return bool(check(row))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Each kind's verdict, or the error."""
    answer, sys.stdout = sys.stdout, sys.stderr
    rows = json.loads(sys.argv[1])
    found = {one.__name__: _verdict(one, rows[one.__name__]) for one in (structured, pooling)}
    import vllm

    json.dump({**found, "version": vllm.__version__}, answer)


if __name__ == "__main__":
    main()
