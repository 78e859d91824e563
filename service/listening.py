"""The socket that requests come in through."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

__all__ = ["listen"]

# The kernel takes the smaller of this and net.core.somaxconn.
_BACKLOG = 2048


def listen(host: str, port: int, path: Path | None) -> tuple[socket.socket, str]:
    """A listening socket, and its address for people.

    Args:
        host: Name or address; ``::`` is every address, of both families where the system can.
        port: Of TCP; 0 takes a free one.
        path: Of a Unix socket to listen on instead.

    Raises:
        ValueError: if that cannot be; the message says why and what to choose instead.
    """
    if path is not None:
        return _unix(path), f"unix:{path.absolute()}"
    bare = host.removeprefix("[").removesuffix("]")
    try:
        (family, *_, address), *_ = socket.getaddrinfo(
            bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        both = bare == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(
            address, family=family, backlog=_BACKLOG, dualstack_ipv6=both
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"cannot listen on {host}:{port}: {reason}; choose another --port or --host"
        ) from error
    name, number = listener.getsockname()[:2]
    return listener, f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}"


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _stale(path):
            path.unlink()
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        # A path that is too long has no number.
        reason = error.strerror or error
        raise ValueError(f"cannot listen on {path}: {reason}; choose another --uds") from error
    return listener


def _stale(path: Path) -> bool:
    """Whether a server that is gone has left its socket there."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        return True
    except FileNotFoundError:
        return False
    return False
