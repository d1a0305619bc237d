"""Certificates as they are made: chains, names, uses, ends; and when one must be made anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from certified import unlike
from concord.certificates import Authority, SiteFiles, Wanted, why_renew
from concord.errors import CertificateError

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WANTED = Wanted("digits", "n1", ("n1.example", "n1.clinic.svc"), (ip_address("10.0.0.1"), ip_address("fd00::1")))


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority.new("digits", 3650, NOW)


@pytest.fixture(scope="module")
def files(ca: Authority) -> SiteFiles:
    return ca.issue(WANTED, 365, NOW)


def loaded(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_a_chain_is_accepted_for_both_ends(ca: Authority, files: SiteFiles) -> None:
    builder = PolicyBuilder().store(Store([ca.certificate])).time(NOW)
    leaf = loaded(files.certificate)
    assert builder.build_server_verifier(x509.DNSName("n1.example")).verify(leaf, []) == [leaf, ca.certificate]
    assert builder.build_client_verifier().verify(leaf, []).chain == [leaf, ca.certificate]


def test_a_certificate_names_its_site_and_its_hosts(files: SiteFiles) -> None:
    names = loaded(files.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://digits/site/n1"]
    assert names.get_values_for_type(x509.DNSName) == list(WANTED.hosts)
    assert names.get_values_for_type(x509.IPAddress) == list(WANTED.addresses)


def test_a_site_cannot_sign_and_a_ca_signs_no_other_ca(ca: Authority, files: SiteFiles) -> None:
    limits = [
        one.extensions.get_extension_for_class(x509.BasicConstraints).value
        for one in (loaded(files.certificate), ca.certificate)
    ]
    assert [(limit.ca, limit.path_length) for limit in limits] == [(False, None), (True, 0)]


def test_keys_are_of_p256_and_show_nowhere(ca: Authority, files: SiteFiles) -> None:
    for pem in (ca.key, files.key):
        key = load_pem_private_key(pem, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
    assert "PRIVATE" not in f"{files!r}"
    assert "_key" not in f"{ca!r}"


def test_a_certificate_begins_a_little_early_and_ends_with_its_ca_at_the_latest(ca: Authority) -> None:
    short, long = (loaded(ca.issue(WANTED, days, NOW).certificate) for days in (30, 9999))
    assert short.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert short.not_valid_after_utc == NOW + timedelta(days=30)
    assert long.not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_a_ca_comes_back_from_its_files(ca: Authority) -> None:
    again = Authority.from_pem(ca.bundle, ca.key, "here", NOW)
    assert again == replace(ca, _key=again._key)
    assert why_renew(again.issue(WANTED, 365, NOW), WANTED, ca, NOW) is None


def test_a_bundle_may_hold_other_cas_and_each_once(ca: Authority) -> None:
    other = Authority.new("digits", 10, NOW)
    again = Authority.from_pem(other.bundle + ca.bundle + other.bundle, ca.key, "here", NOW)
    assert again.certificate == ca.certificate
    assert x509.load_pem_x509_certificates(again.bundle) == [other.certificate, ca.certificate]
    assert again.issue(WANTED, 365, NOW).authorities == again.bundle


@pytest.mark.parametrize(
    ("certificates", "key", "message"),
    [
        (b"", None, "there is no certificate in PEM form"),
        (None, b"", "there is no private key in PEM form without a password"),
        (Authority.new("digits", 10, NOW).bundle, None, "the key does not belong to the certificate"),
    ],
)
def test_a_ca_that_cannot_be_used_is_told(
    ca: Authority, certificates: bytes | None, key: bytes | None, message: str
) -> None:
    with pytest.raises(CertificateError, match=f"here: {message}"):
        Authority.from_pem(
            ca.bundle if certificates is None else certificates, ca.key if key is None else key, "here", NOW
        )


def test_what_is_no_ca_or_out_of_its_time_is_told(ca: Authority, files: SiteFiles) -> None:
    with pytest.raises(CertificateError, match="here: the certificate is not that of a CA"):
        Authority.from_pem(files.certificate, files.key, "here", NOW)
    for moment in (NOW - timedelta(days=1), NOW + timedelta(days=3650)):
        with pytest.raises(CertificateError, match="here: the CA is valid from 2026-03-01 11:55:00 UTC to 2036-02-27"):
            Authority.from_pem(ca.bundle, ca.key, "here", moment)


def self_signed(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> tuple[bytes, bytes]:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "made elsewhere")])
    certificate = unlike(name, key)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), pem


def test_a_ca_made_elsewhere_may_be_of_rsa_but_not_of_anything() -> None:
    authority = Authority.from_pem(*self_signed(rsa.generate_private_key(65537, 2048)), "here", datetime.now(UTC))
    files = authority.issue(WANTED, 1, datetime.now(UTC))
    loaded(files.certificate).verify_directly_issued_by(authority.certificate)
    with pytest.raises(CertificateError, match="here: the key should be of an elliptic curve or RSA"):
        Authority.from_pem(*self_signed(ed25519.Ed25519PrivateKey.generate()), "here", datetime.now(UTC))


def test_good_files_are_kept_until_a_third_of_their_life_is_left(ca: Authority, files: SiteFiles) -> None:
    life = timedelta(days=365, minutes=5)
    end = NOW + timedelta(days=365)
    assert why_renew(files, WANTED, ca, NOW) is None
    assert why_renew(files, WANTED, ca, end - life / 3 - timedelta(seconds=1)) is None
    assert why_renew(files, WANTED, ca, end - life / 3) == "it ends at 2027-03-01 12:00:00 UTC"
    assert why_renew(files, WANTED, ca, end + timedelta(days=9)) == "it ends at 2027-03-01 12:00:00 UTC"


def test_what_is_wrong_with_files_is_told(ca: Authority, files: SiteFiles) -> None:
    other = Authority.new("digits", 3650, NOW)
    found = {
        why_renew(replace(files, certificate=b"x"), WANTED, ca, NOW): "it cannot be read",
        why_renew(replace(files, key=b""), WANTED, ca, NOW): "it cannot be read",
        why_renew(replace(files, key=other.key), WANTED, ca, NOW): "its key is that of another certificate",
        why_renew(files, WANTED, other, NOW): "it is signed by another CA",
        why_renew(replace(files, authorities=b""), WANTED, ca, NOW): "its ca.crt is not what the CA says now",
        why_renew(files, replace(WANTED, site="n2"), ca, NOW): "it names another site",
        why_renew(files, replace(WANTED, federation="x"), ca, NOW): "it names another site",
        why_renew(files, replace(WANTED, hosts=("a", "n1.example", "b")), ca, NOW): "it lacks a, b",
        why_renew(files, replace(WANTED, addresses=(ip_address("10.0.0.2"),)), ca, NOW): "it lacks 10.0.0.2",
    }
    assert list(found) == list(found.values())


def test_a_host_name_too_many_is_no_reason(ca: Authority, files: SiteFiles) -> None:
    assert why_renew(files, replace(WANTED, hosts=(), addresses=()), ca, NOW) is None
