"""Files from the Hugging Face hub: cached, resumed, and checked against the hub's own SHA-256."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from vitexport.errors import WorldFailed, first_line

WAYS_OUT = (
    "Without network, use --weights random or --weights FILE, point HF_HOME at a cache that holds it "
    "(with HF_HUB_OFFLINE=1), or name a mirror in HF_ENDPOINT."
)

#: One attempt decides whether there is a hub at all; huggingface_hub's own retries take 23 s to say no.
REACH_TIMEOUT_S = 5.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


class NotOnHub(LookupError):
    """The hub answered, and has no such repository or file (or hides it from us). ``str(error)`` is one phrase."""


def fetch(repository: str, filename: str, revision: str | None = None) -> Path:
    """The file in the local cache, downloaded if need be; an interrupted download is resumed by the next call.

    Raises ``NotOnHub``, or ``WorldFailed`` where the network, the disk or the checksum fails.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"'{filename}' of '{repository}'"
    try:
        path = Path(hf_hub_download(repository, filename, revision=revision, local_files_only=not _reachable()))
    except LocalEntryNotFoundError as error:
        raise WorldFailed(f"{what} is not in the local cache and the hub cannot be reached. {WAYS_OUT}") from error
    except GatedRepoError as error:
        raise NotOnHub(f"'{repository}' asks for its terms to be accepted on the hub, then HF_TOKEN set") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise NotOnHub(f"the hub has no repository '{repository}', or it is private") from error
    except RevisionNotFoundError as error:
        raise NotOnHub(f"'{repository}' has no revision '{revision}'") from error
    except EntryNotFoundError as error:
        raise NotOnHub(f"'{repository}' has no file '{filename}'") from error
    except OSError as error:  # requests' errors, a cut connection and a full disk alike
        raise WorldFailed(
            f"{what} could not be downloaded ({first_line(error)}). Run the same command again to resume it. {WAYS_OUT}"
        ) from error
    _verify(path, repository, filename, revision)
    return path


def commit(path: Path) -> str:
    """The repository's commit that a fetched file belongs to, from its place in the cache."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else ""


@cache
def _reachable() -> bool:
    """Any answer at all from the hub, in one attempt. False too with HF_HUB_OFFLINE=1."""
    import requests
    from huggingface_hub import constants
    from huggingface_hub.utils._http import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT_S)
    except (requests.RequestException, OSError):  # huggingface_hub's OfflineModeIsEnabled is an OSError
        return False
    return True


def _verify(path: Path, repository: str, filename: str, revision: str | None) -> None:
    """Large files carry their SHA-256 as the hub's ETag, which names the cached blob; huggingface_hub checks the size.

    A file that does not match is removed, so that the next run downloads it anew.
    """
    blob = path.resolve()
    expected = blob.name
    if blob == path.absolute():  # no symbolic links here: the cache does not keep the ETag
        expected = _etag(repository, filename, revision)
    if not _SHA256.fullmatch(expected):
        return  # a small file in git itself: its ETag is no hash of the content alone
    with blob.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found == expected:
        return
    path.unlink()
    blob.unlink(missing_ok=True)
    raise WorldFailed(
        f"'{filename}' of '{repository}' arrived damaged: its SHA-256 is {found[:12]}… and should be {expected[:12]}…. "
        "The bad copy was removed; run the same command again."
    )


def _etag(repository: str, filename: str, revision: str | None) -> str:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if not _reachable():
        return ""
    try:
        found: Any = get_hf_file_metadata(hf_hub_url(repository, filename, revision=revision)).etag
    except OSError as error:
        raise WorldFailed(f"The checksum of '{filename}' of '{repository}' could not be read. {WAYS_OUT}") from error
    return str(found or "")
