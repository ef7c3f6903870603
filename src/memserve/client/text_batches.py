"""Cuts a list of texts into batches of bounded length, the long ones together."""

from collections.abc import Callable, Sequence


def by_tokens(texts: Sequence[str], *, items: int, tokens: int,
              count: Callable[[str], int]) -> list[list[int]]:  # fmt: skip
    """Positions of the texts, longest first, in batches of at most so many items and tokens.

    A single text above the limit makes a batch of its own: refusing it is the engine's affair.
    """
    sizes = [count(text) for text in texts]
    batches: list[list[int]] = []
    left = 0
    for position in sorted(range(len(texts)), key=lambda i: -sizes[i]):
        if not batches or len(batches[-1]) >= items or sizes[position] > left:
            batches.append([])
            left = tokens
        batches[-1].append(position)
        left -= sizes[position]
    return batches
