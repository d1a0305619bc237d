"""A folder of certificates as a process meets it when it starts: what is good, and how each fault is told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from certified import authority, issue, lay, now
from concord.certificates import Authority, SiteFiles
from concord.errors import CertificateError
from concord.transport.material import Facts, load


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture
def good(ca: Authority) -> SiteFiles:
    return issue(ca, "N1")


def test_a_good_folder_tells_whose_it_is(tmp_path: Path, good: SiteFiles) -> None:
    facts = load(lay(tmp_path, good), "test", "N1", time.time()).facts
    begun, until = good_times(good)
    hosts = ("localhost", "127.0.0.1")
    assert facts == Facts(("spiffe://test/site/N1",), hosts, "test CA", begun, until)
    assert load(tmp_path, None, None, time.time()).facts == facts


def good_times(files: SiteFiles) -> tuple[float, float]:
    certificate = x509.load_pem_x509_certificate(files.certificate)
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


def test_a_bundle_of_cas_is_good_also_with_one_that_has_expired(tmp_path: Path, ca: Authority) -> None:
    ended = Authority.new("test", 1, now() - timedelta(days=3))
    files = issue(ca, "N1", trusting=ended.bundle + ca.bundle)
    assert load(lay(tmp_path, files), "test", "N1", time.time()).facts.issuer == "test CA"


Break = Callable[[Path], None]


def removed(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def written(name: str, content: bytes) -> Break:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def locked(folder: Path) -> None:
    key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))
    (folder / "tls.key").write_bytes(pem)


HALF = b"-----BEGIN CERTIFICATE-----\nMIIB"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (removed("tls.crt"), "tls.crt is missing; a folder of certificates holds tls.crt, tls.key, ca.crt"),
        (removed("tls.key"), "tls.key is missing"),
        (removed("ca.crt"), "ca.crt is missing"),
        (written("tls.key", b" \n"), "tls.key is empty"),
        (written("tls.crt", HALF), "tls.crt does not hold certificates in PEM form"),
        (written("ca.crt", b"x"), "ca.crt does not hold certificates in PEM form"),
        (written("tls.key", b"x"), "tls.key does not hold a private key in PEM form without a password"),
        (locked, "tls.key does not hold a private key in PEM form without a password"),
        (written("tls.key", authority().key), "tls.key is not the key of "),
        (written("ca.crt", authority().bundle), "must be signed by a CA in there"),
    ],
)
def test_a_fault_names_the_file(tmp_path: Path, good: SiteFiles, harm: Break, message: str) -> None:
    folder = lay(tmp_path, good)
    harm(folder)
    with pytest.raises(CertificateError) as caught:
        load(folder, "test", "N1", time.time())
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("federation", "site", "wanted"),
    [("test", "N2", "spiffe://test/site/N2"), ("other", "N1", "spiffe://other/site/N1")],
)
def test_the_certificate_of_another_is_told(
    tmp_path: Path, good: SiteFiles, federation: str, site: str, wanted: str
) -> None:
    with pytest.raises(CertificateError, match=f"tls.crt names spiffe://test/site/N1; it should name {wanted}"):
        load(lay(tmp_path, good), federation, site, time.time())


def test_a_certificate_that_names_no_site_is_told(tmp_path: Path, ca: Authority, good: SiteFiles) -> None:
    for uris, found in (
        ([], "no URI"),
        (["https://test/"], "https://test/"),
        (["spiffe://test/site/N1"] * 2, "N1, spiffe"),
    ):
        folder = lay(tmp_path, unusual(ca, uris))
        with pytest.raises(CertificateError, match=f"names .*{found}.*; it should name spiffe://test/site/N1"):
            load(folder, "test", "N1", time.time())


def unusual(
    ca: Authority, uris: list[str], usage: x509.ObjectIdentifier | None = None, until: datetime | None = None
) -> SiteFiles:
    """The files of a site whose certificate has these URIs, is for one `usage` only, or outlives its CA."""
    files = issue(ca, "N1")
    made = x509.load_pem_x509_certificate(files.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.subject)
        .issuer_name(made.issuer)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(until or made.not_valid_after_utc)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), *map(x509.UniformResourceIdentifier, uris)]),
            critical=False,
        )
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    key = load_pem_private_key(ca.key, None)
    certificate = builder.sign(key, made.signature_hash_algorithm)  # type: ignore[arg-type]
    return replace(files, certificate=certificate.public_bytes(Encoding.PEM))


@pytest.mark.parametrize("usage", [x509.OID_SERVER_AUTH, x509.OID_CLIENT_AUTH])
def test_a_certificate_must_do_for_both_ends(tmp_path: Path, ca: Authority, usage: x509.ObjectIdentifier) -> None:
    folder = lay(tmp_path, unusual(ca, ["spiffe://test/site/N1"], usage))
    with pytest.raises(CertificateError, match="for use as a server and as a client"):
        load(folder, "test", "N1", time.time())


def test_a_certificate_out_of_its_time_is_told_with_the_dates(tmp_path: Path, good: SiteFiles) -> None:
    begun, until = good_times(good)
    folder = lay(tmp_path, good)
    with pytest.raises(CertificateError, match=r"tls.crt has expired at 20\d\d-\d\d-\d\d .* UTC, and here it is"):
        load(folder, "test", "N1", until)
    with pytest.raises(CertificateError, match=r"tls.crt is valid from 20\d\d-\d\d-\d\d .* UTC only"):
        load(folder, "test", "N1", begun - 1)


def test_an_expired_ca_is_told(tmp_path: Path) -> None:
    ended = Authority.new("test", 1, now() - timedelta(days=1, minutes=1))
    folder = lay(tmp_path, unusual(ended, ["spiffe://test/site/N1"], until=now() + timedelta(days=1)))
    with pytest.raises(CertificateError, match=r"the CA in .*ca\.crt cannot be used: certificate has expired"):
        load(folder, "test", "N1", time.time())


def test_a_key_that_may_not_be_read_is_told(tmp_path: Path, good: SiteFiles) -> None:
    folder = lay(tmp_path, good)
    (folder / "tls.key").unlink()
    os.mkdir(folder / "tls.key")
    with pytest.raises(CertificateError, match=r"tls\.key cannot be read: Is a directory"):
        load(folder, "test", "N1", time.time())
