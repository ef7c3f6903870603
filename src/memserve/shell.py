"""What a shell would read in a line of words that no shell reads here."""

SIGNS = ";&|<>"
"""The end of a command, or where its streams go, unless they are quoted."""


def is_sign(word: str) -> bool:
    """Whether a word is nothing but such signs."""
    return bool(word) and not word.strip(SIGNS)
