"""`concord certs kubernetes` against an API server that knows Secrets, through the official client."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certified import lay
from cli import Run, runner
from concord.apps.cluster_certificates import Outcome, Plan, settle
from concord.certificates import Authority, SiteFiles, Wanted
from concord.cluster.api import Cluster
from concord.errors import CertificateError
from concord.transport.material import load
from exchange_sites import free_port
from fake_cluster import FakeCluster, fake_cluster, write_kubeconfig

ARGUMENTS = (
    *("certs", "kubernetes", "--federation", "digits", "--namespace", "clinic"),
    *("--ca-secret", "fed-ca", "--secret-prefix", "fed-tls-"),
    *("--site", "n1=n1.clinic.svc,n1", "--site", "n2=n2.clinic.svc"),
    *("--label", "app.kubernetes.io/part-of=concord", "--label", "release=fed"),
)
NAMES = ("fed-ca", "fed-tls-n1", "fed-tls-n2")
LABELS = {"app.kubernetes.io/part-of": "concord", "release": "fed"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with fake_cluster("clinic") as cluster:
        write_kubeconfig(tmp_path / "config", cluster.url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        yield cluster


@pytest.fixture
def concord(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


def actions(concord: Run, *more: str) -> dict[str, str]:
    outcome = concord(*ARGUMENTS, "--json", *more)
    assert (outcome.code, outcome.err) == (0, "")
    return {one["secret"]: one["action"] for one in outcome.json}


def put(cluster: FakeCluster, name: str, files: SiteFiles, kind: str = "kubernetes.io/tls") -> None:
    data = {"tls.crt": files.certificate, "tls.key": files.key, "ca.crt": files.authorities}
    if files.revoked:
        data["ca.crl"] = files.revoked
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    cluster.lay(name, {"apiVersion": "v1", "kind": "Secret", "type": kind, "data": encoded})


def put_ca(cluster: FakeCluster, authority: Authority) -> None:
    put(cluster, "fed-ca", SiteFiles(authority.bundle, authority.key, authority.bundle))


def authority(days: int = 3650, ago: timedelta = timedelta()) -> Authority:
    return Authority.new("digits", days, datetime.now(UTC) - ago)


def files(cluster: FakeCluster, secret: str) -> SiteFiles:
    content = cluster.content(secret)
    return SiteFiles(content["tls.crt"], content["tls.key"], content["ca.crt"], content.get("ca.crl", b""))


def names(cluster: FakeCluster, secret: str) -> list[str]:
    certificate = x509.load_pem_x509_certificate(cluster.content(secret)["tls.crt"])
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def test_all_secrets_are_made_and_a_process_can_use_them(concord: Run, cluster: FakeCluster, tmp_path: Path) -> None:
    assert actions(concord) == dict.fromkeys(NAMES, "created")
    for site in ("n1", "n2"):
        content = cluster.content(f"fed-tls-{site}")
        assert set(content) == {"tls.crt", "tls.key", "ca.crt"}
        folder = lay(tmp_path / site, files(cluster, f"fed-tls-{site}"))
        load(folder, "digits", site, datetime.now(UTC).timestamp())
    assert names(cluster, "fed-tls-n1") == ["n1.clinic.svc", "n1"]
    assert {cluster.secrets[name]["type"] for name in NAMES} == {"kubernetes.io/tls"}
    assert [cluster.secrets[name]["metadata"]["labels"] for name in NAMES] == [LABELS] * 3
    assert cluster.content("fed-ca")["tls.crt"] == cluster.content("fed-tls-n1")["ca.crt"]
    assert "tls.key" in cluster.content("fed-ca")


def test_what_is_in_order_is_left_alone(concord: Run, cluster: FakeCluster) -> None:
    actions(concord)
    before = {name: secret["metadata"]["resourceVersion"] for name, secret in cluster.secrets.items()}
    cluster.asked.clear()
    assert actions(concord) == dict.fromkeys(NAMES, "kept")
    assert {name: secret["metadata"]["resourceVersion"] for name, secret in cluster.secrets.items()} == before
    assert cluster.asked == [("GET", name) for name in NAMES]


def test_it_says_what_it_did(concord: Run, cluster: FakeCluster) -> None:
    shown = concord(*ARGUMENTS).out.splitlines()
    assert shown[0] == "fed-ca: created"
    assert shown[1].startswith("fed-tls-n1: created, until 20")


def test_a_site_that_lacks_a_name_is_issued_anew_and_keeps_what_others_wrote(
    concord: Run, cluster: FakeCluster
) -> None:
    actions(concord)
    secret = cluster.secrets["fed-tls-n1"]
    secret["metadata"]["annotations"] = {"kept": "yes"}
    secret["metadata"]["labels"]["other"] = "label"
    kept = cluster.content("fed-tls-n2")
    outcome = concord(*ARGUMENTS, "--json", "--site", "n3=n3.clinic.svc")
    assert [one["action"] for one in outcome.json] == ["kept", "kept", "kept", "created"]
    more = [part.replace("n1=n1.clinic.svc,n1", "n1=n1.clinic.svc,n1,n1.example") for part in ARGUMENTS]
    outcome = concord(*more, "--json")
    assert [(one["action"], one["why"]) for one in outcome.json][1] == ("re-issued", "it lacks n1.example")
    assert names(cluster, "fed-tls-n1") == ["n1.clinic.svc", "n1", "n1.example"]
    metadata = cluster.secrets["fed-tls-n1"]["metadata"]
    assert (metadata["annotations"], metadata["labels"]) == ({"kept": "yes"}, {**LABELS, "other": "label"})
    assert cluster.content("fed-tls-n2") == kept


@pytest.mark.parametrize(("left", "action"), [(0.34, "kept"), (0.32, "re-issued")])
def test_a_third_of_its_life_before_the_end_it_is_issued_anew(
    concord: Run, cluster: FakeCluster, left: float, action: str
) -> None:
    ca = authority(ago=timedelta(days=300))
    put_ca(cluster, ca)
    begun = datetime.now(UTC) - timedelta(days=100 * (1 - left))
    put(cluster, "fed-tls-n1", ca.issue(Wanted("digits", "n1", ("n1.clinic.svc", "n1")), 100, begun))
    assert actions(concord) == {"fed-ca": "kept", "fed-tls-n1": action, "fed-tls-n2": "created"}


def test_what_another_ca_signed_or_nobody_can_read_is_issued_anew(concord: Run, cluster: FakeCluster) -> None:
    put(
        cluster,
        "fed-tls-n1",
        authority().issue(Wanted("digits", "n1", ("n1.clinic.svc", "n1")), 365, datetime.now(UTC)),
    )
    put(cluster, "fed-tls-n2", SiteFiles(b"", b"", b""))
    assert actions(concord) == {"fed-ca": "created", "fed-tls-n1": "re-issued", "fed-tls-n2": "re-issued"}
    assert actions(concord) == dict.fromkeys(NAMES, "kept")


def test_a_bundle_in_the_ca_secret_reaches_the_sites(concord: Run, cluster: FakeCluster) -> None:
    old, new = authority(), authority()
    put_ca(cluster, old)
    actions(concord)
    put(cluster, "fed-ca", SiteFiles(new.bundle, new.key, new.bundle + old.bundle))
    assert actions(concord) == {"fed-ca": "kept", "fed-tls-n1": "re-issued", "fed-tls-n2": "re-issued"}
    assert cluster.content("fed-tls-n1")["ca.crt"] == new.bundle + old.bundle


def test_a_list_of_revoked_certificates_in_the_ca_secret_reaches_the_sites(
    concord: Run, cluster: FakeCluster, tmp_path: Path
) -> None:
    ca = authority()
    put_ca(cluster, ca)
    actions(concord)
    lost = files(cluster, "fed-tls-n1")
    listed = ca.revoke(lost.certificate, None, datetime.now(UTC))
    put(cluster, "fed-ca", SiteFiles(ca.bundle, ca.key, ca.bundle, listed))
    assert actions(concord) == {"fed-ca": "kept", "fed-tls-n1": "re-issued", "fed-tls-n2": "re-issued"}
    assert actions(concord) == dict.fromkeys(NAMES, "kept")
    now = datetime.now(UTC).timestamp()
    for site in ("n1", "n2"):
        load(lay(tmp_path / site, files(cluster, f"fed-tls-{site}")), "digits", site, now)
    with pytest.raises(CertificateError, match="certificate revoked"):
        load(lay(tmp_path / "n1", replace(lost, revoked=listed)), "digits", "n1", now)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: SiteFiles(b"", b"", b""), "there is no private key in PEM form"),
        (lambda: SiteFiles(authority().bundle, authority().key, b""), "the key does not belong to the certificate"),
        (lambda: _files_of(authority(days=10, ago=timedelta(days=11))), "the CA is valid from"),
        (lambda: authority().issue(Wanted("digits", "n1"), 9, datetime.now(UTC)), "is not that of a CA"),
    ],
)
def test_a_ca_that_cannot_be_used_is_told_and_not_touched(
    concord: Run, cluster: FakeCluster, broken: Callable[[], SiteFiles], message: str
) -> None:
    put(cluster, "fed-ca", broken())
    outcome = concord(*ARGUMENTS)
    assert outcome.code == 2
    assert "the Secret fed-ca in the namespace clinic: " in outcome.err
    assert message in outcome.err
    assert cluster.asked == [("GET", "fed-ca")]


def _files_of(authority: Authority) -> SiteFiles:
    return SiteFiles(authority.bundle, authority.key, authority.bundle)


def test_a_secret_that_is_not_ours_is_not_touched(concord: Run, cluster: FakeCluster) -> None:
    put(cluster, "fed-tls-n1", SiteFiles(b"x", b"y", b"z"), kind="Opaque")
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "the Secret fed-tls-n1 is of the type Opaque" in outcome.err) == (2, True)
    assert cluster.content("fed-tls-n1")["tls.crt"] == b"x"


def test_runs_at_the_same_time_end_with_one_ca(cluster: FakeCluster) -> None:
    together = threading.Barrier(2)

    def before(method: str, name: str) -> None:
        if method == "GET" and (method, name) not in cluster.asked:
            together.wait(10)  # both look before either has made it

    cluster.before = before
    wanted = tuple(Wanted("digits", site, (f"{site}.clinic.svc",)) for site in ("n1", "n2"))
    plan = Plan("fed-ca", "fed-tls-", wanted, "digits")

    def run() -> list[Outcome]:
        with closing(Cluster.connect("clinic", os.environ)) as api:
            return list(settle(api, plan, datetime.now(UTC)))

    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(run), pool.submit(run)])
    for first, second in zip(one, other, strict=True):
        assert {first.action, second.action} == {"created", "kept"}
    assert sum(asked == ("POST", "fed-ca") for asked in cluster.asked) == 2
    ca = x509.load_pem_x509_certificate(cluster.content("fed-ca")["tls.crt"])
    for site in ("n1", "n2"):
        x509.load_pem_x509_certificate(cluster.content(f"fed-tls-{site}")["tls.crt"]).verify_directly_issued_by(ca)


def test_who_changes_a_secret_in_between_is_not_overwritten_unseen(concord: Run, cluster: FakeCluster) -> None:
    ca = authority()
    put_ca(cluster, ca)
    put(cluster, "fed-tls-n1", SiteFiles(b"", b"", b""))
    good = ca.issue(Wanted("digits", "n1", ("n1.clinic.svc", "n1")), 365, datetime.now(UTC))

    def before(method: str, name: str) -> None:
        if method == "PUT":
            put(cluster, "fed-tls-n1", good)

    cluster.before = before
    assert actions(concord)["fed-tls-n1"] == "kept"
    assert cluster.content("fed-tls-n1")["tls.crt"] == good.certificate


def test_a_secret_that_never_stands_still_is_given_up(concord: Run, cluster: FakeCluster) -> None:
    put(cluster, "fed-tls-n1", SiteFiles(b"", b"", b""))
    cluster.before = lambda method, name: (
        put(cluster, "fed-tls-n1", SiteFiles(b"", b"", b"")) if method == "PUT" else None
    )
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "changes faster than it can be written" in outcome.err) == (1, True)


@pytest.mark.parametrize(("method", "verb"), [("GET", "get"), ("POST", "create")])
def test_a_right_that_is_missing_is_told(concord: Run, cluster: FakeCluster, method: str, verb: str) -> None:
    cluster.forbidden = frozenset({method})
    outcome = concord(*ARGUMENTS)
    assert outcome.code == 3
    assert f"{verb} Secret fed-ca: 403" in outcome.err
    assert "the role needs get, create and update on secrets in the namespace clinic" in outcome.err


def test_a_wrong_token_is_told(concord: Run, cluster: FakeCluster, tmp_path: Path) -> None:
    write_kubeconfig(tmp_path / "config", cluster.url, "another token")
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "get Secret fed-ca: 401" in outcome.err) == (1, True)


def test_a_cluster_that_does_not_answer_is_told(concord: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "the Kubernetes API does not answer" in outcome.err) == (3, True)


def test_without_a_cluster_it_is_told_where_one_is_looked_for(
    concord: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "the cluster's configuration cannot be used" in outcome.err) == (3, True)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    outcome = concord(*ARGUMENTS)
    assert (outcome.code, "the cluster's configuration cannot be used" in outcome.err) == (3, True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--site", "n1=x"), "--site: n1 is given twice"),
        (("--site", "n_3=x"), "--site: should be letters, digits"),
        (("--site", "n3=a b"), "--dns: should be a host name"),
        (("--site", "N1=x"), "--site: N1, n1 is given twice"),
        (("--ca-secret", "Fed-ca"), "the Secret's name: should be lower-case letters"),
        (("--label", "x"), "--label: should be KEY=VALUE"),
        (("--ca-secret", "fed-tls-n1"), "--ca-secret: fed-tls-n1 is also the name of a site's Secret"),
    ],
)
def test_a_wrong_argument_is_told(concord: Run, cluster: FakeCluster, more: tuple[str, ...], message: str) -> None:
    outcome = concord(*ARGUMENTS, *more)
    assert (outcome.code, message in outcome.err) == (2, True)
    assert cluster.asked == []


def test_a_secret_has_its_site_in_lower_case_and_the_certificate_as_it_is(concord: Run, cluster: FakeCluster) -> None:
    assert actions(concord, "--site", "North=north.clinic.svc")["fed-tls-north"] == "created"
    certificate = x509.load_pem_x509_certificate(cluster.content("fed-tls-north")["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://digits/site/North"]
