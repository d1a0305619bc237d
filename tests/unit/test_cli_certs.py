"""`concord certs` in folders: what is written, with which rights, and what is refused."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from cryptography import x509

from certified import authority, issue, lay
from cli import Run, runner
from concord.transport.material import load


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def ca(concord: Run) -> str:
    outcome = concord("certs", "ca", "ca", "--federation", "digits")
    assert outcome.code == 0
    return "ca"


def modes(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in Path(folder).iterdir()}


def test_a_ca_and_a_site_are_what_a_process_can_use(concord: Run, ca: str) -> None:
    names = ("--dns", "n1.example", "--dns", "localhost", "--ip", "127.0.0.1")
    outcome = concord("certs", "issue", "n1", "--ca", ca, "--federation", "digits", "--site", "n1", *names)
    assert (outcome.code, outcome.err) == (0, "")
    facts = load(Path("n1"), "digits", "n1", time.time()).facts
    assert facts.hosts == ("n1.example", "localhost", "127.0.0.1")
    assert 364.9 < (facts.until - time.time()) / 86400 < 365.1
    assert Path("n1/ca.crt").read_bytes() == Path("ca/ca.crt").read_bytes()
    assert modes("ca") == {"ca.crt": 0o644, "ca.key": 0o600}
    assert modes("n1") == {"ca.crt": 0o644, "tls.crt": 0o644, "tls.key": 0o600}


def test_a_ca_is_never_overwritten(concord: Run, ca: str) -> None:
    before = {path.name: path.read_bytes() for path in Path(ca).iterdir()}
    outcome = concord("certs", "ca", ca, "--federation", "digits")
    assert (outcome.code, "is there already" in outcome.err) == (2, True)
    Path(ca, "ca.key").unlink()
    outcome = concord("certs", "ca", ca, "--federation", "digits")
    assert (outcome.code, "ca.crt is there already" in outcome.err) == (2, True)
    assert {path.name: path.read_bytes() for path in Path(ca).iterdir()} == {"ca.crt": before["ca.crt"]}


def test_a_certificate_is_renewed_in_its_place(concord: Run, ca: str) -> None:
    arguments = ("certs", "issue", "n1", "--ca", ca, "--federation", "digits", "--site", "n1")
    assert concord(*arguments).code == 0
    before = Path("n1/tls.crt").read_bytes()
    assert concord(*arguments, "--days", "30").code == 0
    assert Path("n1/tls.crt").read_bytes() != before
    assert load(Path("n1"), "digits", "n1", time.time()).facts.until < time.time() + 31 * 86400


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--federation", "Digits", "--site", "n1"), "--federation: should be lower-case letters"),
        (("--federation", "digits", "--site", "n_1"), "--site: should be letters, digits and - inside"),
        (("--federation", "digits", "--site", "n1", "--dns", "https://n1"), "--dns: should be a host name"),
        (("--federation", "digits", "--site", "n1", "--ip", "n1"), "--ip: 'n1' does not appear to be an IPv4 or IPv6"),
        (("--federation", "digits", "--site", "n1", "--days", "0"), "Invalid value for '--days'"),
    ],
)
def test_a_wrong_name_is_told(concord: Run, ca: str, arguments: tuple[str, ...], message: str) -> None:
    outcome = concord("certs", "issue", "n1", "--ca", ca, *arguments)
    assert (outcome.code, message in outcome.err) == (2, True)
    assert not Path("n1").exists()


def test_a_folder_without_a_ca_is_told(concord: Run, ca: str) -> None:
    arguments = ("certs", "issue", "n1", "--federation", "digits", "--site", "n1", "--ca")
    assert "nowhere/ca.crt cannot be read" in concord(*arguments, "nowhere").err
    Path(ca, "ca.key").write_text("x")
    outcome = concord(*arguments, ca)
    assert (outcome.code, "the CA in ca: there is no private key in PEM form" in outcome.err) == (2, True)


def test_a_folder_that_cannot_be_written_is_told(concord: Run, ca: str) -> None:
    Path("n1").write_text("a file")
    outcome = concord("certs", "issue", "n1", "--ca", ca, "--federation", "digits", "--site", "n1")
    assert (outcome.code, "cannot be written" in outcome.err) == (3, True)


def test_check_says_who_it_is_until_when_and_by_whom(concord: Run) -> None:
    lay(Path("n1"), issue(authority("digits"), "n1", "digits"))
    shown = concord("certs", "check", "n1")
    assert shown.code == 0
    assert "spiffe://digits/site/n1" in shown.out
    told = concord("certs", "check", "n1", "--site", "n1", "--federation", "digits", "--json").json
    assert (told["ok"], told["issuer"], told["hosts"]) == (True, "digits CA", ["localhost", "127.0.0.1"])
    assert told["until"].endswith("UTC")


@pytest.mark.parametrize("flag", [("--site", "n2"), ("--federation", "other")])
def test_check_fails_for_the_certificate_of_another(concord: Run, flag: tuple[str, str]) -> None:
    lay(Path("n1"), issue(authority("digits"), "n1", "digits"))
    outcome = concord("certs", "check", "n1", *flag)
    assert (outcome.code, outcome.out) == (1, "")
    assert "names spiffe://digits/site/n1; it should name" in outcome.err
    assert concord("certs", "check", "n1", *flag, "--json").json["ok"] is False


def test_check_fails_for_what_cannot_be_used(concord: Run) -> None:
    outcome = concord("certs", "check", "nowhere")
    assert (outcome.code, "nowhere/tls.crt is missing" in outcome.err) == (1, True)


def test_without_the_package_the_remedy_is_told(concord: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "concord.certificates", raising=False)
    monkeypatch.setitem(sys.modules, "cryptography", None)  # what Python itself does for a module that is not there
    for arguments in (
        ("ca", "ca", "--federation", "digits"),
        ("issue", "n1", "--ca", "ca", "--federation", "digits", "--site", "n1"),
        (
            "kubernetes",
            "--federation",
            "digits",
            "--namespace",
            "x",
            "--site",
            "n1=a",
            "--ca-secret",
            "c",
            "--secret-prefix",
            "s-",
        ),
    ):
        outcome = concord("certs", *arguments)
        assert (outcome.code, "pip install 'concord-edge[cluster]'" in outcome.err) == (3, True)


def test_revoked_certificates_add_up_in_one_list(concord: Run, ca: str) -> None:
    for site in ("n1", "n2"):
        assert concord("certs", "issue", site, "--ca", ca, "--federation", "digits", "--site", site).code == 0
    for site in ("n1", "n2", "n1"):
        assert concord("certs", "revoke", f"{site}/tls.crt", "--ca", ca).code == 0
    listed = x509.load_pem_x509_crl(Path(ca, "ca.crl").read_bytes())
    serials = [
        x509.load_pem_x509_certificate(Path(site, "tls.crt").read_bytes()).serial_number for site in ("n1", "n2")
    ]
    assert [one.serial_number for one in listed] == serials
    Path("n1/ca.crl").write_bytes(Path(ca, "ca.crl").read_bytes())
    outcome = concord("certs", "check", "n1")
    assert (outcome.code, "certificate revoked; ca.crl names it" in outcome.err) == (1, True)
    assert concord("certs", "issue", "n1", "--ca", ca, "--federation", "digits", "--site", "n1").code == 0
    assert Path("n1/ca.crl").read_bytes() == Path(ca, "ca.crl").read_bytes()
    assert concord("certs", "check", "n1").code == 0


def test_only_its_own_certificates_are_revoked_by_a_ca(concord: Run, ca: str) -> None:
    assert concord("certs", "ca", "other", "--federation", "digits").code == 0
    assert concord("certs", "issue", "n1", "--ca", "other", "--federation", "digits", "--site", "n1").code == 0
    outcome = concord("certs", "revoke", "n1/tls.crt", "--ca", ca)
    assert (outcome.code, "was not signed by this CA" in outcome.err) == (2, True)
    assert concord("certs", "issue", "n2", "--ca", ca, "--federation", "digits", "--site", "n2").code == 0
    Path(ca, "ca.crl").write_text("nonsense")
    outcome = concord("certs", "revoke", "n2/tls.crt", "--ca", ca)
    assert (outcome.code, "cannot be gone on from" in outcome.err) == (2, True)


def test_a_list_that_would_shut_out_a_ca_is_not_laid_at_sites(concord: Run, ca: str) -> None:
    assert concord("certs", "issue", "n1", "--ca", ca, "--federation", "digits", "--site", "n1").code == 0
    assert concord("certs", "ca", "other", "--federation", "digits").code == 0
    assert concord("certs", "issue", "n2", "--ca", "other", "--federation", "digits", "--site", "n2").code == 0
    assert concord("certs", "revoke", "n2/tls.crt", "--ca", "other").code == 0
    for folder in (ca, "n1"):
        Path(folder, "ca.crl").write_bytes(Path("other/ca.crl").read_bytes())
    outcome = concord("certs", "issue", "n3", "--ca", ca, "--federation", "digits", "--site", "n3")
    assert (outcome.code, "it needs one of every CA in ca.crt" in outcome.err) == (2, True)
    assert not Path("n3").exists()
    outcome = concord("certs", "check", "n1")
    assert (outcome.code, "ca.crl must hold a list of every CA in ca.crt" in outcome.err) == (1, True)
