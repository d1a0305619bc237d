"""Makes the CA of a federation and the certificates of its sites, and says when one must be made anew.

Bytes in, bytes out: knows no folder, no cluster and no clock. The only module that needs `cryptography`; processes of a
site do without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from concord.errors import CertificateError
from concord.identities import site_uri

_EARLY = timedelta(minutes=5)
"""How much before its making a certificate begins, for sites whose clocks are behind."""
_LONGEST_NAME = 64
"""Characters a common name may have (RFC 5280); it is for people, what counts is the URI."""

_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)

_SIGNERS = (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
"""Keys of CAs; other kinds sign nothing."""

Address = IPv4Address | IPv6Address
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose certificate it is to be, and the names and addresses by which neighbours call that site."""

    federation: str
    site: str
    hosts: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteFiles:
    """What one site needs, as PEM: its certificate, its key, the CAs whose certificates it accepts, and the lists of
    those that it accepts no more (none: empty).
    """

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    revoked: bytes = b""

    @property
    def until(self) -> datetime:
        """When the certificate ends."""
        return _read_certificates(self.certificate, "the certificate")[0].not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of a federation. `bundle` is what sites accept, as PEM: itself, and others during a change of CA.
    `revoked` are lists of certificates that these have taken back, one of each CA, or empty.
    """

    certificate: x509.Certificate
    bundle: bytes
    _key: SigningKey = field(repr=False)
    revoked: bytes = b""

    @classmethod
    def new(cls, federation: str, days: int, now: datetime) -> Self:
        """A CA that signs certificates of sites and no other CA's."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{federation} CA")
        usage = _usage(digital_signature=False, sign_certificates=True)
        certificate = (
            _builder(name, name, key.public_key(), now - _EARLY, now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, certificate.public_bytes(Encoding.PEM), key)

    @classmethod
    def from_pem(cls, certificates: bytes, key: bytes, where: str, now: datetime, revoked: bytes = b"") -> Self:
        """A CA from its key and one or more certificates, of which one must be the key's.

        CertificateError, which names `where` they are from, if they cannot be used.
        """
        private = _read_key(key, where)
        found = _unique(_read_certificates(certificates, where))
        own = [one for one in found if _public(one.public_key()) == _public(private.public_key())]
        if not own:
            raise CertificateError(f"{where}: the key does not belong to the certificate")
        if not isinstance(private, SigningKey):
            raise CertificateError(f"{where}: the key should be of an elliptic curve or RSA")
        if not _may_sign(own[0]):
            raise CertificateError(f"{where}: the certificate is not that of a CA")
        if not own[0].not_valid_before_utc <= now < own[0].not_valid_after_utc:
            raise CertificateError(
                f"{where}: the CA is valid from {_date(own[0].not_valid_before_utc)} to "
                f"{_date(own[0].not_valid_after_utc)}, and now it is {_date(now)}"
            )
        if revoked:
            _check_lists(revoked, found, where)
        return cls(own[0], b"".join(one.public_bytes(Encoding.PEM) for one in found), private, revoked)

    @property
    def key(self) -> bytes:
        """The private key as PEM; whoever has it can be any site."""
        return _pem(self._key)

    def issue(self, wanted: Wanted, days: int, now: datetime) -> SiteFiles:
        """A new key and its certificate, for use as a server and as a client; it ends with the CA at the latest."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        certificate = (
            _builder(_name(wanted.site), self.certificate.subject, key.public_key(), now - _EARLY, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True, sign_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(_names(wanted)), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return SiteFiles(certificate.public_bytes(Encoding.PEM), _pem(key), self.bundle, self.revoked)

    def revoke(self, certificates: bytes, before: bytes | None, now: datetime) -> bytes:
        """A CRL, as PEM, of what `before` (a CRL of this CA, or None) names and of these certificates; valid as long as
        the CA is. CertificateError if one is of another CA.
        """
        own, until = self.certificate.subject, self.certificate.not_valid_after_utc
        serials = {one.serial_number: one.revocation_date_utc for one in _read_revoked(before, self.certificate)}
        for one in _read_certificates(certificates, "the certificate to revoke"):
            if not _is_signed_by(one, self.certificate):
                raise CertificateError(f"the certificate {one.serial_number:x} was not signed by this CA")
            serials.setdefault(one.serial_number, now)
        builder = x509.CertificateRevocationListBuilder(own, now - _EARLY, until)
        for serial, since in serials.items():
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def why_renew(files: SiteFiles, wanted: Wanted, authority: Authority, now: datetime) -> str | None:
    """What is wrong with the files of a site, or that a third of their life or less is left; None if they are well."""
    try:
        certificate = _read_certificates(files.certificate, "the certificate")[0]
        key = _read_key(files.key, "the key")
    except CertificateError:
        return "it cannot be read"
    if _public(certificate.public_key()) != _public(key.public_key()):
        return "its key is that of another certificate"
    if not _is_signed_by(certificate, authority.certificate):
        return "it is signed by another CA"
    if files.authorities != authority.bundle:
        return "its ca.crt is not what the CA says now"
    if files.revoked != authority.revoked:
        return "its ca.crl is not what the CA says now"
    return _why_rename(certificate, wanted) or _why_in_time(certificate, now)


def _why_rename(certificate: x509.Certificate, wanted: Wanted) -> str | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it names no site"
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [site_uri(wanted.federation, wanted.site)]:
        return "it names another site"
    hosts = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    lacking = [host for host in (*wanted.hosts, *map(str, wanted.addresses)) if host not in hosts]
    return f"it lacks {', '.join(lacking)}" if lacking else None


def _why_in_time(certificate: x509.Certificate, now: datetime) -> str | None:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if certificate.not_valid_after_utc - now <= life / 3:
        return f"it ends at {_date(certificate.not_valid_after_utc)}"
    return None


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _usage(*, digital_signature: bool, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_LONGEST_NAME])])


def _names(wanted: Wanted) -> list[x509.GeneralName]:
    return [
        x509.UniformResourceIdentifier(site_uri(wanted.federation, wanted.site)),
        *(x509.DNSName(host) for host in wanted.hosts),
        *(x509.IPAddress(address) for address in wanted.addresses),
    ]


def _pem(key: SigningKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read_key(pem: bytes, where: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"{where}: there is no private key in PEM form without a password") from error


def _read_certificates(pem: bytes, where: str) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"{where}: there is no certificate in PEM form") from error


def _read_revoked(pem: bytes | None, by: x509.Certificate) -> Iterable[x509.RevokedCertificate]:
    if pem is None:
        return ()
    try:
        found = x509.load_pem_x509_crl(pem)
        if not _is_list_of(found, by):
            raise ValueError("another CA signed it")
    except ValueError as exc:
        raise CertificateError(f"the list of revoked certificates cannot be gone on from: {exc}") from exc
    return found


def _check_lists(pem: bytes, authorities: Iterable[x509.Certificate], where: str) -> None:
    """CertificateError unless there is a list of every CA: sites would let in nobody of a CA that lacks one."""
    try:
        lists = [x509.load_pem_x509_crl(one) for one in _LIST.findall(pem)]
        lacking = [ca for ca in authorities if not any(_is_list_of(one, ca) for one in lists)]
    except ValueError as error:
        raise CertificateError(f"{where}: ca.crl does not hold lists of revoked certificates in PEM form") from error
    if lacking:
        names = ", ".join(one.subject.rfc4514_string() for one in lacking)
        raise CertificateError(f"{where}: ca.crl holds no list of {names}; it needs one of every CA in ca.crt")


def _is_list_of(revoked: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return isinstance(key, _SIGNERS) and revoked.is_signature_valid(key)


def _unique(certificates: Iterable[x509.Certificate]) -> list[x509.Certificate]:
    return list(dict.fromkeys(certificates))


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _is_signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
