"""Files from the network, of known content, whole or not at all."""

import hashlib
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from funcnet.checkpoint.files import sync_file, whole
from funcnet.data.errors import DataError

__all__ = ["fetch"]


def fetch(urls: Sequence[str], path: Path, sha256: str, *, timeout: float = 60) -> Path:
    """Copy a file from the first of its addresses that has it, and check it before it takes its name.

    Args:
        urls: the addresses, tried in turn.
        path: where it goes; its folder is made.
        sha256: the digest of its content, in hexadecimal.
        timeout: seconds without a byte after which an address is given up.

    Raises:
        DataError: no address has it, with the reason of each; or it cannot be written. Nothing is left behind.
    """
    reasons = []
    for url in urls:
        try:
            _copy(url, path, sha256, timeout)
        except DataError as error:
            reasons.append(f"{url}: {error}")
        else:
            return path
    raise DataError(f"{path} could not be fetched. " + "; ".join(reasons) + ". Put the file there by hand.")


def _copy(url: str, path: Path, sha256: str, timeout: float) -> None:
    digest, length = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary:
            with temporary.open("wb") as file, urllib.request.urlopen(url, timeout=timeout) as answer:
                promised = answer.headers.get("Content-Length")
                while part := answer.read(1 << 20):
                    file.write(part)
                    digest.update(part)
                    length += len(part)
                sync_file(file)
            if promised is not None and length != int(promised):
                raise DataError(f"it ended after {length} of {promised} bytes")
            if digest.hexdigest() != sha256.lower():
                raise DataError(f"its sha256 is {digest.hexdigest()} and should be {sha256}")
            temporary.chmod(0o644)
    except (OSError, HTTPException) as error:
        raise DataError(f"{type(error).__name__}: {error}") from error
