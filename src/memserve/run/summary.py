"""What a run did, and its answers read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Summary:
    """Counts of requests, tokens and dollars. Every request read is in exactly one of the counts."""

    output: str
    failed_output: str
    total: int = 0
    """Requests read from the input."""
    done: int = 0
    """Asked and answered by this run."""
    cached: int = 0
    """Answered out of the answer cache."""
    resumed: int = 0
    """Answered already when the run began."""
    repeated: int = 0
    """The same request under the same id stood earlier in the input."""
    failed: int = 0
    """In the file of failures, with a reason each."""
    pending: int = 0
    """Read but not answered, because the run was stopped."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that the provider found in its prefix cache."""
    usd: float | None = None
    """Of this run; None where no price is known."""
    seconds: float = 0.0
    stopped: str | None = None
    """Why the run ended before its input did."""

    @property
    def answered(self) -> int:
        """Requests with an answer in the output."""
        return self.done + self.cached + self.resumed

    @property
    def tokens(self) -> int:
        """Prompt and answer tokens of this run."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens_per_second(self) -> float:
        """Answer tokens per second of this run."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        parts = [f"{self.done} answered"]
        counts = (
            (self.cached, "from the cache"), (self.resumed, "answered before"), (self.repeated, "repeated"),
        )  # fmt: skip
        parts += [f"{count} {words}" for count, words in counts if count]
        parts.append(f"{self.failed} failed")
        if self.pending:
            parts.append(f"{self.pending} not asked")
        parts.append(f"{self.tokens} tokens ({self.cached_tokens} of them cached)")
        if self.usd is not None:
            parts.append(f"${self.usd:.4f}")
        parts.append(f"{self.seconds:.1f} s")
        places = f"{self.output}" + (f", failures in {self.failed_output}" if self.failed else "")
        return f"{', '.join(parts)}; answers in {places}"


def answers(output: str | Path) -> Iterator[dict[str, Any]]:
    """Every answer of an output, also while a run is writing it: a line that is not whole yet is left out."""
    with Path(output).open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def vectors(output: str | Path) -> tuple[list[str | int], NDArray[np.float32]]:
    """The ids and the matrix of an embedder's run, in the order of its input; of two answers the later."""
    import numpy as np

    found = {row["id"]: (row.get("index", 0), row["embedding"]) for row in answers(output)}
    rows = sorted(((index, name, vector) for name, (index, vector) in found.items()), key=lambda row: row[0])
    return [name for _, name, _ in rows], np.array([vector for _, _, vector in rows], np.float32)
