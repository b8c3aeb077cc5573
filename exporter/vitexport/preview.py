"""``vitexport preview``: a bundle's own page, in a browser on this machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

from vitexport.contract import Site
from vitexport.errors import BadRequest
from vitexport.manifest import find_bundles
from vitexport.serving import serve


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
