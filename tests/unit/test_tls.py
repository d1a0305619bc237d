"""Files of certificates that change under a running process: what is taken, what is not, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certified import authority, issue, lay, now
from concord.certificates import Authority
from concord.errors import CertificateError
from concord.transport.tls import SiteTls


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority()


@pytest.fixture
def folder(tmp_path: Path, ca: Authority) -> Path:
    return lay(tmp_path / "N1", issue(ca, "N1"))


@pytest.fixture
def tls(folder: Path) -> SiteTls:
    return SiteTls(folder, "test", "N1")


def serial(server: SiteTls, caller: SiteTls) -> str:
    """The number of the certificate that the server presents to a neighbour now."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.server.wrap_bio(to_server, to_client, server_side=True)
    here = caller.towards(server.site).wrap_bio(to_client, to_server, server_hostname="localhost")
    for _ in range(3):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = here.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


@pytest.fixture
def neighbour(tmp_path: Path, ca: Authority) -> SiteTls:
    return SiteTls(lay(tmp_path / "N2", issue(ca, "N2")), "test", "N2")


def test_what_is_as_it_was_is_not_taken_anew(folder: Path, tls: SiteTls, ca: Authority) -> None:
    assert not tls.look()
    for name in ("tls.crt", "tls.key", "ca.crt"):
        os.utime(folder / name, (1, 1))
    assert not tls.look()
    assert tls.generation == 0


def test_a_replacement_is_taken_and_presented(folder: Path, tls: SiteTls, neighbour: SiteTls, ca: Authority) -> None:
    before = serial(tls, neighbour)
    lay(folder, issue(ca, "N1"))
    assert serial(tls, neighbour) == before
    assert tls.look()
    assert serial(tls, neighbour) != before
    assert (tls.generation, tls.look()) == (1, False)


def test_a_swapped_link_is_followed_as_in_a_mounted_secret(tmp_path: Path, ca: Authority) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for number in ("1", "2"):
        lay(tmp_path / "mounted" / f"..{number}", issue(ca, "N1"))
    (mounted / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (mounted / name).symlink_to(f"..data/{name}")
    tls = SiteTls(mounted, "test", "N1")
    neighbour = SiteTls(lay(tmp_path / "N2", issue(ca, "N2")), "test", "N2")
    before = serial(tls, neighbour)
    (mounted / "..data_tmp").symlink_to("..2")
    os.replace(mounted / "..data_tmp", mounted / "..data")
    assert tls.look()
    assert serial(tls, neighbour) != before


Harm = Callable[[Path, Authority], None]


def half_written(folder: Path, ca: Authority) -> None:
    certificate = (folder / "tls.crt").read_bytes()
    (folder / "tls.crt").write_bytes(certificate[: len(certificate) // 2])


def without_its_key(folder: Path, ca: Authority) -> None:
    (folder / "tls.crt").write_bytes(issue(ca, "N1").certificate)


def gone(folder: Path, ca: Authority) -> None:
    (folder / "ca.crt").unlink()


def of_another_site(folder: Path, ca: Authority) -> None:
    lay(folder, issue(ca, "N2"))


@pytest.mark.parametrize("harm", [half_written, without_its_key, gone, of_another_site])
def test_a_broken_replacement_is_told_once_and_not_taken(
    folder: Path, tls: SiteTls, neighbour: SiteTls, ca: Authority, harm: Harm, caplog: pytest.LogCaptureFixture
) -> None:
    before = serial(tls, neighbour)
    harm(folder, ca)
    assert [tls.look() for _ in range(3)] == [False] * 3
    assert (serial(tls, neighbour), tls.generation) == (before, 0)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "those of before stay in use" in caplog.text
    assert str(folder) in str(tls.to_dict()["problem"])
    lay(folder, issue(ca, "N1"))
    assert tls.look()
    assert tls.to_dict()["problem"] is None


def test_a_broken_replacement_that_is_taken_back_is_no_problem_any_more(folder: Path, tls: SiteTls) -> None:
    certificate = (folder / "tls.crt").read_bytes()
    (folder / "tls.crt").write_bytes(b"")
    assert not tls.look()
    (folder / "tls.crt").write_bytes(certificate)
    assert not tls.look()
    assert (tls.generation, tls.to_dict()["problem"]) == (0, None)


def test_what_cannot_be_used_at_the_start_is_an_error(tmp_path: Path, ca: Authority) -> None:
    with pytest.raises(CertificateError, match=r"tls\.crt is missing"):
        SiteTls(tmp_path, "test", "N1")


@pytest.mark.anyio
async def test_whoever_listens_hears_of_each_change(folder: Path, tls: SiteTls, ca: Authority) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    tls.on_change(lambda: heard.put_nowait(tls.generation))
    following = asyncio.create_task(tls.follow(0.01))
    for number in (1, 2):
        lay(folder, issue(ca, "N1"))
        assert await asyncio.wait_for(heard.get(), 5.0) == number
    following.cancel()
    await asyncio.wait((following,))


def test_refused_connections_are_counted_and_told_now_and_then(
    folder: Path, ca: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    tls = SiteTls(folder, "test", "N1", clock=lambda: now)
    for later in (0.0, 1.0, 61.0):
        now += later
        server = tls.server.wrap_bio(_talk(b"GET / HTTP/1.1\r\n\r\n"), ssl.MemoryBIO(), server_side=True)
        with pytest.raises(ssl.SSLError):
            server.do_handshake()
    assert tls.refused == 3
    assert [record.args[0] for record in caplog.records if record.args] == [1, 3]  # type: ignore[index]


def _talk(text: bytes) -> ssl.MemoryBIO:
    bio = ssl.MemoryBIO()
    bio.write(text)
    return bio


def test_a_new_ca_is_taken_and_the_old_one_is_forgotten(
    folder: Path, tls: SiteTls, tmp_path: Path, ca: Authority
) -> None:
    coming = authority()
    files = issue(coming, "N2", trusting=coming.bundle + ca.bundle)
    new = SiteTls(lay(tmp_path / "new", files), "test", "N2")
    old = SiteTls(lay(tmp_path / "old", issue(ca, "N2", trusting=coming.bundle + ca.bundle)), "test", "N2")
    for trusted, accepted in ((ca.bundle + coming.bundle, (old, new)), (coming.bundle, (new,))):
        lay(folder, issue(coming, "N1", trusting=trusted))
        assert tls.look()
        for caller in (old, new):
            before = tls.refused
            if caller in accepted:
                serial(tls, caller)
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    serial(tls, caller)
            assert tls.refused == before + (caller not in accepted)


def test_a_revoked_certificate_is_let_in_no_more_and_again_when_the_list_is_gone(
    folder: Path, tls: SiteTls, neighbour: SiteTls, tmp_path: Path, ca: Authority
) -> None:
    theirs = (tmp_path / "N2" / "tls.crt").read_bytes()
    serial(tls, neighbour)
    (folder / "ca.crl").write_bytes(ca.revoke(theirs, None, now()))
    assert tls.look()
    with pytest.raises(ssl.SSLError, match="revoked"):
        serial(tls, neighbour)
    (folder / "ca.crl").write_bytes(b"nonsense")
    assert not tls.look()
    assert "does not hold a CRL" in str(tls.to_dict()["problem"])
    (folder / "ca.crl").unlink()
    assert tls.look()
    serial(tls, neighbour)
