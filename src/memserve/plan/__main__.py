"""python -m memserve.plan MODEL --gpus SPEC"""

from __future__ import annotations

import gc
import io
import os
import sys
from typing import TYPE_CHECKING

from memserve.errors import DoesNotFit, MemserveError

if TYPE_CHECKING:
    from collections.abc import Sequence

FITS, MISSES, MALFORMED = 0, 1, 2
LONGEST = 300


def main(words: Sequence[str] | None = None) -> int:
    """Run one call; the exit code says what came of it."""
    gc.disable()  # one short answer makes too little garbage to look for
    if sys.stdout is None:  # closed by the caller: the exit code alone answers
        sys.stdout = io.StringIO()
    try:
        from memserve.plan.tasks.dispatch import run

        return run(words)
    except DoesNotFit as error:
        say(str(error))
        return MISSES
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FITS
    except (MemserveError, OSError, RecursionError, UnicodeError) as error:
        say(str(error) or type(error).__name__)
        return MALFORMED
    except Exception as error:
        if os.environ.get("MEMSERVE_DEBUG"):
            raise
        say(f"memserve failed ({type(error).__name__}: {error}): please report it with this command line")
        return MALFORMED


def say(text: str) -> None:
    """One line on stderr, whatever the message holds."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    short = line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
    if sys.stderr is None:
        return
    sys.stderr.write(short.encode("utf-8", "replace").decode("utf-8") + "\n")


if __name__ == "__main__":
    outcome = main()
    gc.freeze()  # what ends now is not searched for garbage again
    sys.exit(outcome)
