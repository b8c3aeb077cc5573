"""TLS on an address that no authority vouches for: WebGPU and threads need a secure context, which plain http is on
this machine alone. The certificate is made for one run; its key is in memory but for the moment it is loaded in."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

#: A phone's clock may be wrong by as much.
_CLOCKS_DIFFER = timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    context: ssl.SSLContext
    fingerprint: str
    """SHA-256 of the certificate, as browsers show it: ``AB:CD:...``."""


def self_signed(addresses: Sequence[str]) -> Certificate:
    """For a server at ``addresses`` (IP addresses), from now on for a day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vitexport bench")])
    now = datetime.now(UTC)
    known_as = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(a)) for a in addresses])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + _CLOCKS_DIFFER)
        .add_extension(known_as, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    digest = hashlib.sha256(made.public_bytes(serialization.Encoding.DER)).hexdigest().upper()
    return Certificate(_context(pem), ":".join(digest[i : i + 2] for i in range(0, len(digest), 2)))


def _context(pem: bytes) -> ssl.SSLContext:
    """``ssl`` reads keys from files alone: this one is its owner's, and is gone before anybody connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    handle, path = tempfile.mkstemp(prefix="vitexport-")  # readable by its owner alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return context
