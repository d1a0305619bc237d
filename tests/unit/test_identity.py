"""Signatures of requests: what they prove, and what they do not let pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concord.errors import IdentityError, NotAllowed
from concord.identities import PeerCertificate, certified_site, site_uri
from concord.sealed import digest
from concord.settings import Secret
from concord.transport.identity import INSECURE, Certified, NonceMemory, Signer, Trust, Verifier

SECRET = Secret(b"0123456789abcdef")
TARGET = "/v1/inbox/N1?x=1"


class Clock:
    """A clock that stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(clock: Clock) -> Verifier:
    return Verifier("N2", SECRET, clock, window=300.0, nonces_per_site=4)


@pytest.fixture
def headers(clock: Clock) -> dict[str, str]:
    """Those of a request from N1 to N2."""
    return Signer("N1", SECRET, clock).headers("N2", "PUT", TARGET, digest(b"body"))


def check(verifier: Verifier, headers: dict[str, str], body: bytes = b"body") -> str:
    claim = verifier.claim("PUT", TARGET, headers)
    verifier.confirm(claim, digest(body))
    return claim.site


def test_a_signed_request_is_believed(verifier: Verifier, headers: dict[str, str]) -> None:
    assert check(verifier, headers) == "N1"


@pytest.mark.parametrize("name", ["concord-site", "concord-timestamp", "concord-nonce", "concord-signature"])
def test_a_missing_header_is_named(verifier: Verifier, headers: dict[str, str], name: str) -> None:
    del headers[name]
    with pytest.raises(IdentityError, match=name):
        check(verifier, headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("concord-site", "N3"),
        ("concord-timestamp", "1700000000.001"),
        ("concord-nonce", "0" * 32),
        ("concord-signature", "0" * 64),
        ("concord-signature", "ü"),
    ],
)
def test_a_changed_header_is_noticed(verifier: Verifier, headers: dict[str, str], name: str, value: str) -> None:
    with pytest.raises(IdentityError, match="does not match"):
        check(verifier, headers | {name: value})


def test_a_changed_body_method_or_target_is_noticed(verifier: Verifier, headers: dict[str, str]) -> None:
    attempts: list[tuple[str, str, bytes]] = [
        ("PUT", TARGET, b"Body"),
        ("GET", TARGET, b"body"),
        ("PUT", TARGET + "1", b"body"),
    ]
    for method, target, body in attempts:
        claim = verifier.claim(method, target, headers)
        with pytest.raises(IdentityError, match="does not match"):
            verifier.confirm(claim, digest(body))


def test_a_request_to_one_site_proves_nothing_at_another(clock: Clock, headers: dict[str, str]) -> None:
    with pytest.raises(IdentityError, match="does not match"):
        check(Verifier("N3", SECRET, clock), headers)


def test_another_secret_is_not_believed(clock: Clock, headers: dict[str, str]) -> None:
    with pytest.raises(IdentityError, match="does not match"):
        check(Verifier("N2", Secret(b"fedcba9876543210"), clock), headers)


def test_a_request_counts_once(verifier: Verifier, headers: dict[str, str]) -> None:
    check(verifier, headers)
    with pytest.raises(IdentityError, match="before"):
        check(verifier, headers)


def test_a_forged_request_does_not_use_up_the_nonce(verifier: Verifier, headers: dict[str, str]) -> None:
    with pytest.raises(IdentityError):
        check(verifier, headers, b"forged")
    assert check(verifier, headers) == "N1"


@pytest.mark.parametrize("shift", [-301.0, 301.0])
def test_a_clock_too_far_away_is_refused(
    clock: Clock, verifier: Verifier, headers: dict[str, str], shift: float
) -> None:
    clock.now += shift
    with pytest.raises(IdentityError, match="clock"):
        check(verifier, headers)


@pytest.mark.parametrize("shift", [-299.0, 299.0])
def test_a_clock_within_the_window_is_accepted(
    clock: Clock, verifier: Verifier, headers: dict[str, str], shift: float
) -> None:
    clock.now += shift
    assert check(verifier, headers) == "N1"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "soon", "1e400"])
def test_a_time_that_is_none_is_refused(verifier: Verifier, headers: dict[str, str], text: str) -> None:
    with pytest.raises(IdentityError):
        check(verifier, headers | {"concord-timestamp": text})


def test_what_memory_forgot_cannot_be_replayed(clock: Clock, verifier: Verifier) -> None:
    signer = Signer("N1", SECRET, clock)
    recorded = []
    for _ in range(10):
        clock.now += 1.0
        recorded.append(signer.headers("N2", "PUT", TARGET, digest(b"body")))
        check(verifier, recorded[-1])
    for headers in recorded:
        with pytest.raises(IdentityError, match="before"):
            check(verifier, headers)


def test_one_busy_site_does_not_push_out_the_nonces_of_another(clock: Clock, verifier: Verifier) -> None:
    quiet = Signer("N3", SECRET, clock).headers("N2", "PUT", TARGET, digest(b"body"))
    for _ in range(10):
        clock.now += 1.0
        check(verifier, Signer("N1", SECRET, clock).headers("N2", "PUT", TARGET, digest(b"body")))
    assert check(verifier, quiet) == "N3"


@given(times=st.lists(st.integers(0, 50), max_size=60))
def test_nonce_memory_never_lets_one_pass_twice(times: list[int]) -> None:
    memory = NonceMemory(capacity=5)
    accepted = []
    for number, timestamp in enumerate(times):
        if memory.is_fresh(str(number), timestamp):
            memory.remember(str(number), timestamp)
            accepted.append((str(number), timestamp))
    assert not any(memory.is_fresh(nonce, timestamp) for nonce, timestamp in accepted)


@pytest.mark.parametrize(("later", "passes"), [(5, True), (6, False)])
def test_a_request_passes_unless_more_than_are_kept_overtook_it(later: int, passes: bool) -> None:
    memory = NonceMemory(capacity=5)
    for number in range(1, later + 1):
        memory.remember(str(number), float(number))
    assert memory.is_fresh("late", 0.5) == passes


def test_without_a_secret_the_name_is_believed(clock: Clock) -> None:
    headers = Signer("N1", INSECURE, clock).headers("N2", "PUT", TARGET, digest(b""))
    assert headers == {"concord-site": "N1"}
    verifier = Verifier("N2", INSECURE, clock)
    assert check(verifier, headers) == "N1"
    with pytest.raises(IdentityError, match="concord-site"):
        check(verifier, {})


def test_a_site_with_a_secret_does_not_believe_one_without(clock: Clock, verifier: Verifier) -> None:
    unsigned = Signer("N1", INSECURE, clock).headers("N2", "PUT", TARGET, digest(b"body"))
    with pytest.raises(IdentityError, match="missing"):
        check(verifier, unsigned)


def test_the_secret_shows_nowhere(clock: Clock) -> None:
    signer: Callable[..., dict[str, str]] = Signer("N1", SECRET, clock).headers
    shown = f"{SECRET!r} {SECRET} {signer('N2', 'PUT', TARGET, digest(b''))}"
    assert "0123456789abcdef" not in shown


def certificate(*uris: str, until: float = 2e9) -> PeerCertificate:
    return PeerCertificate(uris, until)


N1 = certificate("spiffe://test/site/N1")


def claim(trust: Trust, headers: dict[str, str], certificate: PeerCertificate | None, clock: Clock) -> str:
    verifier = Verifier("N2", trust, clock)
    claim = verifier.claim("PUT", TARGET, headers, certificate)
    verifier.confirm(claim, digest(b"body"))
    return claim.site


def test_with_certificates_a_request_needs_no_more_than_its_name(clock: Clock) -> None:
    headers = Signer("N1", Certified("test"), clock).headers("N2", "PUT", TARGET, digest(b"body"))
    assert headers == {"concord-site": "N1"}
    assert claim(Certified("test"), headers, N1, clock) == "N1"


@pytest.mark.parametrize(
    ("found", "error", "message"),
    [
        (None, IdentityError, "the connection has no certificate"),
        (certificate(), IdentityError, "should name one site by a URI; it has 0"),
        (certificate("spiffe://test/site/N1", "spiffe://test/site/N3"), IdentityError, "it has 2"),
        (certificate("https://test/site/N1"), IdentityError, "not of the form"),
        (certificate("spiffe://test/site/"), IdentityError, "not of the form"),
        (certificate("spiffe:///site/N1"), IdentityError, "not of the form"),
        (certificate("spiffe://test/site/N1/more"), IdentityError, "not of the form"),
        (certificate("spiffe://x/test/site/N1"), IdentityError, "not of the form"),
        (certificate("spiffe://test/user/N1"), IdentityError, "not of the form"),
        (certificate("spiffe://other/site/N1"), NotAllowed, "this is the federation test"),
        (certificate("spiffe://test/site/N3"), IdentityError, "says 'N1', but the certificate names 'N3'"),
        (certificate("spiffe://test/site/n1"), IdentityError, "says 'N1', but the certificate names 'n1'"),
        (certificate("spiffe://test/site/N1", until=1_700_000_000.0), IdentityError, "has expired"),
    ],
)
def test_a_certificate_that_does_not_bear_the_name_out(
    clock: Clock, found: PeerCertificate | None, error: type[IdentityError], message: str
) -> None:
    with pytest.raises(IdentityError, match=message) as caught:
        claim(Certified("test"), {"concord-site": "N1"}, found, clock)
    assert type(caught.value) is error


def test_with_both_a_certificate_and_a_secret_both_are_checked(clock: Clock, headers: dict[str, str]) -> None:
    trust = Certified("test", SECRET)
    signed = Signer("N1", trust, clock).headers("N2", "PUT", TARGET, digest(b"body"))
    assert set(signed) == set(headers)
    assert claim(trust, signed, N1, clock) == "N1"
    with pytest.raises(IdentityError, match="no certificate"):
        claim(trust, signed, None, clock)
    with pytest.raises(IdentityError, match="concord-timestamp is missing"):
        claim(trust, {"concord-site": "N1"}, N1, clock)
    with pytest.raises(IdentityError, match="does not match"):
        claim(Certified("test", Secret(b"fedcba9876543210")), signed, N1, clock)


NAMES = st.from_regex("[A-Za-z0-9-]{1,63}", fullmatch=True)


@given(federation=NAMES, site=NAMES)
def test_a_name_comes_back_from_its_uri(federation: str, site: str) -> None:
    assert certified_site([site_uri(federation, site)], federation) == site
