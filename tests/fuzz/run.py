# ruff: noqa: E501
"""Coverage-guided fuzzing of every reader: `python tests/fuzz/run.py [--seconds 120] [--keep FOLDER] [READER ...]`.

Prints for each reader how often it was run and what it stumbled over; exit code 1 where it did. A stumble is anything
that is not one of memserve's errors, and whatever takes more than five seconds of CPU time. Needs atheris.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import traceback
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE.parents[1] / part) for part in ("src", "backends"))]
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_PLAIN = 0.35
"""The share of mutants that libFuzzer makes of bytes."""


def fuzz(name: str, seconds: int, folder: Path) -> None:
    """Run one reader in this process until the time is over; stumbles are left in the folder."""
    import logging
    import os
    import random
    import resource
    import signal

    import atheris

    os.environ.update(MEMSERVE_CONFIG_DIR=str(folder / "config"), HF_HUB_OFFLINE="1")
    with atheris.instrument_imports(include=["memserve", "memserve_openai", "memserve_anthropic", "memserve_gemini",
                                             "memserve_bedrock", "memserve_pangu", "memserve_vllm"]):  # fmt: skip
        from readers import CPU_SECONDS, READERS

        from memserve.errors import MemserveError
        from mutants import mutant

    logging.disable(logging.CRITICAL)
    reader, seen = READERS[name], set[str]()
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {CPU_SECONDS:g} s of CPU time")

    def once(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
        try:
            reader.read(data)
        except MemserveError:
            pass
        except (Exception, SystemExit) as broken:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            _keep(broken, data)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _keep(broken: BaseException, data: bytes) -> None:
        frames = [f for f in traceback.extract_tb(broken.__traceback__) if "memserve" in f.filename]
        last = frames[-1] if frames else None
        where = (
            f"{type(broken).__name__} {Path(last.filename).name}:{last.lineno}" if last else repr(broken)[:80]
        )
        if where not in seen:
            seen.add(where)
            stem = folder / f"{name}-{sha256(where.encode()).hexdigest()[:12]}"
            stem.with_suffix(".bin").write_bytes(data)
            words = "".join(traceback.format_exception(broken, limit=-12))
            stem.with_suffix(".txt").write_text(f"{where}\n{words}", errors="replace")

    def change(data: bytes, most: int, seed: int) -> bytes:
        draw = random.Random(seed)
        found = atheris.Mutate(data, len(data)) if draw.random() < _PLAIN else mutant(data, draw)
        return found[:most]

    signal.signal(signal.SIGVTALRM, too_long)
    corpus = folder / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = ["-max_len=65536", f"-max_total_time={seconds}", "-timeout=600", "-report_slow_units=600", "-rss_limit_mb=4000", "-verbosity=1",
             "-print_final_stats=1", f"-artifact_prefix={folder}/{name}-hang-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(corpus)], once, custom_mutator=change)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--seconds", type=int, default=120, help="for each reader")
    parser.add_argument("--keep", type=Path, help="a folder for what was found, and for the corpus")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = (options.keep or Path(tempfile.mkdtemp(prefix="memserve-fuzz-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if options.inside:
        fuzz(options.readers[0], options.seconds, folder)
    from readers import READERS

    failed = False
    for name in options.readers or READERS:
        before = set(folder.glob(f"{name}-*"))
        words = [
            sys.executable,
            __file__,
            name,
            "--inside",
            "--seconds",
            str(options.seconds),
            "--keep",
            str(folder),
        ]
        with (folder / f"{name}.log").open("wb") as log:
            code = subprocess.run(words, stdout=log, stderr=log, check=False).returncode
        said = (folder / f"{name}.log").read_text(errors="replace")
        done = _DONE.search(said)
        found = sorted(set(folder.glob(f"{name}-*")) - before)
        failed = failed or bool(found) or not done
        runs = f"{int(done[1]):>9,} runs" if done else f"ended with {code}: {said[-300:]}"
        print(f"{name:12} {runs}, {sum(one.suffix == '.txt' for one in found)} stumbles", flush=True)
        for one in found:
            print(
                f"    {one}" + (f": {one.read_text().splitlines()[0]}" if one.suffix == ".txt" else ""),
                flush=True,
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
