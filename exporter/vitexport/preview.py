"""Serve folders on 127.0.0.1 as a browser runtime needs them: right MIME types, and isolation, so that threads work."""

from __future__ import annotations

import errno
import signal
import socketserver
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from vitexport.errors import BadRequest
from vitexport.manifest import find_bundles

HOST = "127.0.0.1"

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
    # The next export writes other bytes to the same addresses.
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Site:
    """What is served: ``pages`` (path -> bytes), then ``mounts`` (prefix, as ``/ort/``, -> folder), then ``root``."""

    root: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)
    pages: Mapping[str, bytes] = field(default_factory=dict)


@contextmanager
def serve(site: Site, port: int = 0) -> Iterator[str]:
    """The site's address, ending in ``/``, for as long as the block lasts. Port 0 picks a free one.

    Reachable from this machine only. Raises ``BadRequest`` where the port cannot be had.
    """
    try:
        server = _Server((HOST, port), partial(_Handler, site=site))
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "in use" if taken else getattr(error, "strerror", None) or "ports are 0 to 65535"
        raise BadRequest(f"Port {port} cannot be had ({why}). Try another, or --port 0 for a free one.") from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def run(directory: Path, port: int) -> None:
    """Serve the bundle in ``directory`` (or in a folder of bundles, the one that has a page) until interrupted."""
    pages = [bundle.directory for bundle in find_bundles(directory) if (bundle.directory / "index.html").is_file()]
    if not pages:
        raise BadRequest(f"'{directory}' holds no bundle with a page to show. Export one with --target webgpu.")
    with serve(Site(pages[0]), port) as url:
        print(f"Serving {pages[0]} at {url} - open it in a browser; Ctrl-C stops.", flush=True)
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopped.set())
        stopped.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection early is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            socketserver.BaseServer.handle_error(self, request, client_address)  # type: ignore[arg-type]


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *arguments: object, site: Site) -> None:
        self._site = site
        super().__init__(*arguments, directory=str(site.root))  # type: ignore[arg-type]

    def send_head(self) -> BytesIO | IO[bytes] | None:  # type: ignore[override]
        """Answers GET and HEAD. Another site's page that points its own host name here (DNS rebinding) gets nothing."""
        if (self.headers["Host"] or "").rpartition(":")[0] not in (HOST, "localhost"):
            self.send_error(403, "This server answers to 127.0.0.1 and localhost only")
            return None
        path = unquote(urlsplit(self.path).path)
        if (page := self._site.pages.get(path)) is not None:
            return self._page(path, page)
        return super().send_head()

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
