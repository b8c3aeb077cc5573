"""Serve folders as a browser runtime needs them: right MIME types, and isolation, so that threads work.

On 127.0.0.1, read only. Whoever opens another :class:`Door` puts a :class:`vitexport.contract.Desk` behind it, which
knows who may come in and what may be posted.
"""

from __future__ import annotations

import errno
import socket
import socketserver
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, unquote, urlsplit

from vitexport.contract import Refused, Site, Taken
from vitexport.errors import BadRequest

HOST = "127.0.0.1"

#: A connection that says nothing for so long is closed: a browser opens another when it needs one.
IDLE_TIMEOUT_S = 60.0

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".png": "image/png",
    ".onnx": "application/octet-stream",
}

_HEADERS = {
    # A page in a group of its own gets SharedArrayBuffer, and with it WebAssembly threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # An address that lets its reader in is nobody else's to see.
    "Referrer-Policy": "no-referrer",
    # The next export writes other bytes to the same addresses.
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Door:
    """Where a site is reached. ``names`` are the hosts that it answers to, whatever name points to the address."""

    address: str = HOST
    port: int = 0
    """0 picks a free one."""
    names: tuple[str, ...] = (HOST, "localhost")
    """In lower case; an IPv6 address without its brackets."""
    tls: ssl.SSLContext | None = None

    @property
    def scheme(self) -> str:
        return "https" if self.tls else "http"


@contextmanager
def serve(site: Site, port: int = 0, door: Door | None = None) -> Iterator[str]:
    """The site's address, ending in ``/``, for as long as the block lasts; reachable from this machine only, unless a
    ``door`` says otherwise. Raises ``BadRequest`` where the port cannot be had.
    """
    door = door or Door(port=port)
    try:
        server = _Server((door.address, door.port), partial(_Handler, site=site, door=door))
    except (OSError, OverflowError) as error:
        raise _unavailable(door, error) from error
    server.tls = door.tls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{door.scheme}://{door.address}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def _unavailable(door: Door, error: OSError | OverflowError) -> BadRequest:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL:
        return BadRequest(f"{door.address} is no address of this machine. Name one that it has.")
    why = "in use" if number == errno.EADDRINUSE else getattr(error, "strerror", None) or "ports are 0 to 65535"
    return BadRequest(f"Port {door.port} cannot be had ({why}). Try another, or --port 0 for a free one.")


def _host(header: str) -> str:
    """The name in a Host header (RFC 9110, 7.2), which tells no port where that is the scheme's own; empty where it is
    malformed."""
    try:
        parts = urlsplit(f"//{header}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return ""
    return name if name and parts.netloc == header and "@" not in header else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    tls: ssl.SSLContext | None = None

    def get_request(self) -> tuple[socket.socket, Any]:
        """The handshake is left to the connection's own thread: a client that never ends it keeps nobody waiting."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection early, or does not like a certificate, is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError | ssl.SSLError | TimeoutError):
            # typeshed names the kinds of request that the standard library has; this hands on what it was handed.
            socketserver.BaseServer.handle_error(self, request, client_address)  # type: ignore[arg-type]


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT_S

    def __init__(self, *arguments: object, site: Site, door: Door) -> None:
        self._site, self._door = site, door
        # The server's three positional arguments, which are the base class's own business, are handed on unread.
        super().__init__(*arguments, directory=str(site.root))  # type: ignore[arg-type]

    def send_head(self) -> BytesIO | IO[bytes] | None:  # type: ignore[override]  # the base copies any binary file
        """Answers GET and HEAD."""
        try:
            path = self._inner_path()
        except Refused as refusal:
            return self._refuse(refusal)
        if (page := self._site.pages.get(path)) is not None:
            return self._page(path, page)
        self.path = quote(path)
        return super().send_head()

    def do_POST(self) -> None:
        try:
            taken = self._posted()
        except Refused as refusal:
            self.wfile.write(self._refuse(refusal).read())
            return
        try:
            self.wfile.write(self._text(200, taken.answer).read())
        finally:
            taken.then()

    def _inner_path(self) -> str:
        """Another site's page that points its own host name here (DNS rebinding) gets nothing."""
        if _host(self.headers["Host"] or "") not in self._door.names:
            raise Refused(403, f"This server answers to {' and '.join(self._door.names)} only")
        outer = unquote(urlsplit(self.path).path)
        if "\0" in outer:
            raise Refused(404, "No file has such a name")
        return self._site.desk.inside(outer) if self._site.desk else outer

    def _posted(self) -> Taken:
        path, desk = self._inner_path(), self._site.desk
        if desk is None:
            raise Refused(405, "Nothing is posted here")
        if self.headers.get("Origin", own := f"{self._door.scheme}://{self.headers['Host']}") != own:
            raise Refused(403, "Only this server's own page posts here")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "Only JSON is posted here")
        length = self.headers["Content-Length"] or ""
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise Refused(411, "Say in Content-Length how long it is")
        most = desk.limit(path)
        if len(length) > 15 or int(length) > most:
            raise Refused(413, f"At most {most:,} bytes are taken")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(400, "It ended before Content-Length said")
        return desk.take(path, unquote(urlsplit(self.path).path), body)

    def _refuse(self, refusal: Refused) -> BytesIO:
        self.close_connection = True  # what else was sent is not read
        return self._text(refusal.status, refusal.sentence)

    def _text(self, status: int, text: str) -> BytesIO:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        return BytesIO(content)

    def _page(self, path: str, content: bytes) -> BytesIO:
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return BytesIO(content)

    def translate_path(self, path: str) -> str:
        prefix = max((p for p in self._site.mounts if path.startswith(p)), key=len, default="/")
        self.directory = str(self._site.mounts.get(prefix, self._site.root))
        return super().translate_path(path[len(prefix) - 1 :])

    def guess_type(self, path: object) -> str:
        return _TYPES.get(Path(str(path)).suffix.lower(), "application/octet-stream")

    def list_directory(self, path: object) -> None:
        self.send_error(404, "No index.html here")

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the page itself says what it could not fetch."""
