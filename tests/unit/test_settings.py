"""Settings of a process: precedence, mistakes, and the secret that must not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from concord.errors import JobError
from concord.settings import Secret, Settings, load_settings, parse_peers

SECRET = "a secret of enough bytes"


def test_defaults_are_safe() -> None:
    settings = load_settings({}, {"PATH": "/bin"})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    environment = {"CONCORD_PORT": "9000", "CONCORD_SITE": "N1", "CONCORD_HOST": "0.0.0.0"}
    settings = load_settings({"port": "9001", "site": None, "insecure": "true"}, environment)
    assert (settings.port, settings.site, settings.host, settings.insecure) == (9001, "N1", "0.0.0.0", True)


def test_every_kind_of_value_is_read() -> None:
    environment = {
        "CONCORD_REDIS_URL": "unix:///run/redis.sock",
        "CONCORD_STATE_DIR": "/var/lib/concord",
        "CONCORD_THREADS": "3",
        "CONCORD_TOPOLOGY": "/etc/concord/topology.json",
        "CONCORD_JOIN_TIMEOUT": "0",
        "CONCORD_DRAIN": "2.5",
        "CONCORD_TLS_DIR": "/etc/concord/tls",
        "CONCORD_EXCHANGE_PORT": "9443",
        "CONCORD_PEERS": "N2=http://two:8080/, N3=https://three",
    }
    settings = load_settings({}, environment)
    assert settings.redis_url == "unix:///run/redis.sock"
    assert settings.state_dir == Path("/var/lib/concord")
    assert settings.threads == 3
    assert settings.topology == Path("/etc/concord/topology.json")
    assert (settings.join_timeout, settings.drain) == (0.0, 2.5)
    assert (settings.tls_dir, settings.exchange_port) == (Path("/etc/concord/tls"), 9443)
    assert settings.peers == {"N2": "http://two:8080", "N3": "https://three"}


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "CONCORD_REDIS",
            "x",
            "unknown environment variable 'CONCORD_REDIS'; did you mean 'CONCORD_REDIS_URL'?",
        ),
        ("CONCORD_PORT", "http", "should be a port from 0 to 65535, found 'http'"),
        ("CONCORD_EXCHANGE_PORT", "x", "exchange_port (CONCORD_EXCHANGE_PORT): should be a port from 0 to 65535"),
        ("CONCORD_PORT", "70000", "should be a port from 0 to 65535, found '70000'"),
        ("CONCORD_REDIS_URL", "localhost:6379", "should begin with redis://"),
        ("CONCORD_PEERS", "N2", "should be NAME=http://host:port, found 'N2'"),
        ("CONCORD_PEERS", "N2=http://a,N2=http://b", "gives N2 twice"),
        ("CONCORD_INSECURE", "maybe", "should be true or false"),
        ("CONCORD_DRAIN", "-1", "should be seconds from 0, found '-1'"),
        ("CONCORD_JOIN_TIMEOUT", "inf", "should be seconds from 0, found 'inf'"),
        ("CONCORD_SECRET", "short", "has 5 bytes; it needs at least 16"),
        ("CONCORD_SECRET_FILE", "/nowhere/secret", "/nowhere/secret cannot be read"),
    ],
)
def test_a_wrong_value_names_its_variable_and_what_is_right(variable: str, text: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        load_settings({}, {variable: text})
    assert message in str(caught.value)


def test_an_unknown_flag_names_the_nearest() -> None:
    with pytest.raises(JobError, match="unknown setting 'redis-url'; did you mean 'redis_url'"):
        load_settings({"redis-url": "redis://x"}, {})


def test_variables_of_other_parts_are_not_settings() -> None:
    environment = {"CONCORD_RUN_FILE": "x", "CONCORD_DATA": "y", "CONCORD_JOB": "z"}
    assert load_settings({}, environment) == Settings()


def test_the_secret_comes_from_a_file_or_the_environment_and_never_shows(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    for settings in (
        load_settings({"secret_file": str(path)}, {"CONCORD_SECRET": "another one, not the flag's"}),
        load_settings({}, {"CONCORD_SECRET_FILE": str(path)}),
        load_settings({}, {"CONCORD_SECRET": SECRET}),
    ):
        assert settings.secret == Secret(SECRET.encode())
        assert SECRET not in f"{settings} {settings!r} {settings.secret}"


def test_the_admin_token_comes_in_the_same_ways(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(SECRET + "\n")
    for settings in (
        load_settings({"admin_token_file": str(path)}, {"CONCORD_ADMIN_TOKEN": "another one, not the flag's"}),
        load_settings({}, {"CONCORD_ADMIN_TOKEN_FILE": str(path)}),
        load_settings({}, {"CONCORD_ADMIN_TOKEN": SECRET, "CONCORD_SECRET": "another secret of enough bytes"}),
    ):
        assert settings.admin_token == Secret(SECRET.encode())
        assert SECRET not in f"{settings} {settings!r}"
    assert load_settings({}, {}).admin_token is None
    with pytest.raises(JobError, match="CONCORD_ADMIN_TOKEN and CONCORD_ADMIN_TOKEN_FILE are both set"):
        load_settings({}, {"CONCORD_ADMIN_TOKEN": SECRET, "CONCORD_ADMIN_TOKEN_FILE": "x"})


def test_a_secret_is_no_flag_and_is_given_once() -> None:
    with pytest.raises(JobError, match="unknown setting 'secret'"):
        load_settings({"secret": SECRET}, {})
    with pytest.raises(JobError, match="both set"):
        load_settings({}, {"CONCORD_SECRET": SECRET, "CONCORD_SECRET_FILE": "x"})


def test_doing_without_a_proof_must_be_said() -> None:
    with pytest.raises(JobError, match=r"--tls-dir.*CONCORD_TLS_DIR.*--secret-file.*CONCORD_SECRET.*--insecure"):
        Settings().identity_secret()
    assert Settings(insecure=True).identity_secret() is None
    assert Settings(secret=Secret(SECRET.encode())).identity_secret() == Secret(SECRET.encode())
    assert Settings(tls_dir=Path("tls")).identity_secret() is None
    assert Settings(tls_dir=Path("tls"), secret=Secret(SECRET.encode())).identity_secret() == Secret(SECRET.encode())


def test_certificates_are_not_used_insecurely() -> None:
    with pytest.raises(JobError, match="contradict each other"):
        Settings(tls_dir=Path("tls"), insecure=True).identity_secret()


def test_no_peers_is_no_error() -> None:
    assert parse_peers(" ") == {}
