"""Counts for Prometheus, in its text format."""

from collections import Counter
from collections.abc import Mapping

from memserve.protocol import Usage

_TOLD = {
    "memserve_requests_total": "counter", "memserve_requests_in_flight": "gauge",
    "memserve_request_seconds": "summary", "memserve_first_token_seconds": "summary",
    "memserve_tokens_total": "counter",
}  # fmt: skip


class Metrics:
    """What happened since the start."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._values: Counter[tuple[str, str]] = Counter()

    def finished(self, route: str, status: int, seconds: float) -> None:
        """A request was answered, or given up (499)."""
        self._values["memserve_requests_total", _labels({"route": route, "status": str(status)})] += 1
        self.lasted("memserve_request_seconds", route, seconds)

    def lasted(self, name: str, route: str, seconds: float) -> None:
        """One more of a summary."""
        self._values[f"{name}_count", _labels({"route": route})] += 1
        self._values[f"{name}_sum", _labels({"route": route})] += seconds  # type: ignore[assignment]

    def used(self, model: str, usage: Usage | None) -> None:
        """Tokens that an answer took."""
        for kind in ("prompt", "completion"):
            tokens = getattr(usage, f"{kind}_tokens", None)
            self._values["memserve_tokens_total", _labels({"model": model, "kind": kind})] += tokens or 0

    def text(self) -> str:
        """All of them, a line each."""
        values = {**self._values, ("memserve_requests_in_flight", ""): self.in_flight}
        lines = [
            line for name, kind in _TOLD.items() for line in (f"# TYPE {name} {kind}", *_lines(name, values))
        ]
        return "\n".join(lines) + "\n"


def _lines(name: str, values: Mapping[tuple[str, str], float]) -> list[str]:
    own = (name, f"{name}_count", f"{name}_sum")
    return [f"{found}{labels} {value}" for (found, labels), value in sorted(values.items()) if found in own]


def _labels(pairs: Mapping[str, str]) -> str:
    marks = {"\\": r"\\", '"': r"\"", "\n": r"\n"}
    said = {name: "".join(marks.get(sign, sign) for sign in text) for name, text in pairs.items()}
    return "{" + ",".join(f'{name}="{text}"' for name, text in said.items()) + "}"
