"""Loaded by the sites of the wire test: writes down every byte that their processes send, before it is encrypted."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FEDERATION_TAP"])


def _note(own: socket.socket, data: Any) -> None:
    try:
        peer = own.getpeername()
    except OSError:
        peer = "unknown"
    port = peer[1] if isinstance(peer, tuple) else "local"
    with (FOLDER / f"{os.getpid()}.{port}.bytes").open("ab") as file:
        file.write(bytes(data))


def _tapped(kind: type, name: str) -> None:
    plain = getattr(kind, name)

    def send(self: socket.socket, data: Any, *rest: Any) -> Any:
        _note(self, data)
        return plain(self, data, *rest)

    setattr(kind, name, send)


_tapped(ssl.SSLSocket, "send")
_tapped(socket.socket, "send")
_tapped(socket.socket, "sendall")
