"""Which port an engine gets, how it is kept for it, and who listens there."""

import os
import socket
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from memserve.errors import InvalidInput

_LISTENING = "0A"
"""As /proc/net/tcp writes it."""


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.socket(_family(host)) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise InvalidInput(f"cannot listen on {host}: {error.strerror}") from error
        return int(probe.getsockname()[1])


@contextmanager
def held(host: str, port: int) -> Iterator[None]:
    """Keeps a port from others until the engine takes it, as Linux allows while nobody listens."""
    with socket.socket(_family(host)) as kept:
        if sys.platform == "linux":
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                kept.setsockopt(socket.SOL_SOCKET, option, 1)
            with suppress(OSError):
                kept.bind((host, port))
        yield


def listener(session: int, host: str, port: int,
             told: Collection[str] = ()) -> Literal["ours", "another", "nobody", "unknown"]:  # fmt: skip
    """Who listens there: one of this session or that was `told` as much, or another, which must not be."""
    packed = socket.inet_pton(_family(host), socket.gethostbyname(host) if ":" not in host else host)
    address = "".join(packed[at : at + 4][::-1].hex().upper() for at in range(0, len(packed), 4))
    places = {f"{one}:{port:04X}" for one in (address, "0" * 8, "0" * 32)}
    sockets = _listening(places)
    if not sockets:
        return "unknown" if sockets is None else "nobody"
    if not sockets.isdisjoint(_opened(session, told)):
        return "ours"
    return "another" if sockets & (_listening(places) or set()) else "nobody"  # gone: it only tried the port


def _listening(places: set[str]) -> set[str] | None:
    """The sockets that listen at one of these places; None where the system does not tell."""
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    try:  # the second is not there where IPv6 is switched off
        texts = [table.read_text() for table in tables if table is tables[0] or table.exists()]
    except OSError:
        return None
    rows = [row.split() for text in texts for row in text.splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if row[3] == _LISTENING and row[1] in places}


def _opened(session: int, told: Collection[str]) -> Iterator[str]:
    """What the processes of a session, and those with one of these words, have open, as /proc names it."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            of = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
            if of == session or (told and not _words(folder).isdisjoint(told)):
                for one in (folder / "fd").iterdir():
                    with suppress(OSError):  # closed in the meantime
                        yield str(one.readlink())


def _words(process: Path) -> set[str]:
    """What it was started with: its arguments, and the values of its variables."""
    arguments, variables = ((process / name).read_bytes().split(b"\0") for name in ("cmdline", "environ"))
    return {os.fsdecode(one) for one in (*arguments, *(row.partition(b"=")[2] for row in variables))}


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
