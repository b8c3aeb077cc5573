"""A server of files on loopback that can go wrong as servers do: what download tests talk to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Served:
    """``files`` by path, without its slash. Headers are the hub's: a large file's ETag is its SHA-256."""

    files: dict[str, bytes]
    url: str = ""
    cut: set[str] = field(default_factory=set)
    """Of these only the first half is sent, and the connection closed."""
    damaged: set[str] = field(default_factory=set)
    """Of these one bit is sent wrong, under the right ETag."""
    failing: int | None = None
    """A status that every request is answered with."""
    asked: list[str] = field(default_factory=list)
    """Paths whose content was sent, or begun."""


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Served]:
    served = Served(files)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.lstrip("/")
            content = served.files.get(path)
            if served.failing or content is None:
                self.send_response(served.failing or 404)
                if content is None and "/resolve/" in path:
                    known = any(name.startswith(path.partition("/resolve/")[0]) for name in served.files)
                    self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            digest = hashlib.sha256(content).hexdigest()
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not body:
                return
            served.asked.append(path)
            sent = content[start:]
            if path in served.damaged:
                sent = sent[:-1] + bytes([sent[-1] ^ 1])
            if path in served.cut:
                sent = sent[: len(sent) // 2]
                self.close_connection = True
            self.wfile.write(sent)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
