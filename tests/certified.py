"""Certificates for tests: a CA, and the folders of sites whose certificates it signed."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from concord.certificates import Authority, SiteFiles, Wanted

LOOPBACK = (ip_address("127.0.0.1"),)


def now() -> datetime:
    return datetime.now(UTC)


def authority(federation: str = "test") -> Authority:
    """A new CA."""
    return Authority.new(federation, 10, now())


def issue(
    by: Authority, site: str, federation: str = "test", trusting: bytes | None = None, ago: timedelta = timedelta()
) -> SiteFiles:
    """A certificate for a site on loopback, `ago` issued for one day, for a site that accepts `trusting`."""
    wanted = Wanted(federation, site, ("localhost",), LOOPBACK)
    files = by.issue(wanted, 1, now() - ago)
    return files if trusting is None else replace(files, authorities=trusting)


def lay(folder: Path, files: SiteFiles) -> Path:
    """Write the files of a site, as a kubernetes.io/tls Secret is mounted but for the links; gives the folder."""
    folder.mkdir(exist_ok=True)
    (folder / "tls.key").write_bytes(files.key)
    (folder / "tls.crt").write_bytes(files.certificate)
    (folder / "ca.crt").write_bytes(files.authorities)
    if files.revoked:
        (folder / "ca.crl").write_bytes(files.revoked)
    return folder


def context(folder: Path, *, with_certificate: bool = True) -> ssl.SSLContext:
    """What a caller that is not ours would make of a folder: nothing is checked that Python does not check itself."""
    made = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if with_certificate:
        made.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return made


def unlike(name: x509.Name, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> x509.Certificate:
    """A CA's certificate of another make than ours, for one day."""
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None)
    )
