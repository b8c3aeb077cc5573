"""Files from PyTorch's own store of weights, into torch.hub's cache, checked against the SHA-256 in their names."""

from __future__ import annotations

import hashlib
import http.client
import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlparse

from vitexport.errors import WorldFailed, first_line

WAYS_OUT = (
    "Without network, use --weights random or --weights FILE, or put the file into $TORCH_HOME/hub/checkpoints "
    "(by default ~/.cache/torch/hub/checkpoints)."
)

#: torch.hub's convention: ``NAME-<first digits of the SHA-256>.pth``.
_NAMED = re.compile(r"-([0-9a-f]{8,})\.pth$")


def fetch(url: str) -> Path:
    """The file at ``url`` in torch.hub's cache, downloaded if need be, and whole: what lies there is hashed every time.

    torch.hub writes to another name and moves the file when its hash is right, so that what is cut short never takes
    the file's place; it believes what it finds in the cache, which may have come from elsewhere.
    Raises ``WorldFailed`` where the network, the disk or the checksum fails.
    """
    import torch

    name = Path(urlparse(url).path).name
    named = _NAMED.search(name)
    if named is None:
        raise ValueError(f"'{name}' does not carry its SHA-256")
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        _download(url, path, named[1])
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(named[1]):
        path.unlink()
        raise WorldFailed(_damaged(name, found, named[1]))
    return path


def _download(url: str, path: Path, digits: str) -> None:
    import torch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digits, progress=False)
    except HTTPError as error:
        raise WorldFailed(
            f"'{path.name}' cannot be downloaded: the server answered {error.code}. {WAYS_OUT}"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # URLError, a connection that was cut, a full disk
        raise WorldFailed(f"'{path.name}' could not be downloaded ({first_line(error)}). {WAYS_OUT}") from error
    except RuntimeError as error:  # the hash; a connection that ends early says nothing else
        found = re.search(r'got "([0-9a-f]+)"', str(error))
        raise WorldFailed(_damaged(path.name, found[1] if found else "unknown", digits)) from error


def _damaged(name: str, found: str, expected: str) -> str:
    return (
        f"'{name}' arrived damaged or cut short: its SHA-256 is {found[:12]}… and should begin with {expected}. "
        "It was removed; run the same command again."
    )
