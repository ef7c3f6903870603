"""How a public name goes: for one more minor release it works and says what to use instead."""

import warnings


def warn_deprecated(what: str, *, instead: str, removed_in: str, stacklevel: int = 2) -> None:
    """Warn whoever called the function that calls this (docs/stability.md)."""
    warnings.warn(
        f"{what} is deprecated and goes in memserve {removed_in}: use {instead}",
        DeprecationWarning,
        stacklevel=stacklevel + 1,
    )
