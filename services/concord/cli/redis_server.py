"""`concord redis`: the site's Redis-protocol server in the foreground, set up as the mailbox and the shelf need it.

It ends in becoming the server, so that signals reach that and nothing else. It must not know what is stored.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, NoReturn

import typer

from concord.errors import EnvironmentProblem, JobError
from concord.mailbox.server import find_server

PASSWORD_VARIABLE = "REDIS_PASSWORD"  # noqa: S105 - the variable's name
LONGEST_PASSWORD = 512
"""Bytes; the server takes no longer one."""
_EVERY = {"*": ("*", "-::*")}
"""To the server a star means every address of IPv4 only; after a dash, it does without what the machine lacks."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("redis")(redis)


def redis(
    directory: Annotated[Path, typer.Option("--dir", help="Data folder; must be there and writable.")],
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 6379,
    bind: Annotated[str, typer.Option(help="Addresses to listen on, with commas between; * is all.")] = "127.0.0.1",
    max_memory: Annotated[int, typer.Option(help="Bytes beyond which writes are refused; 0: no limit.", min=0)] = 0,
    append_only: Annotated[bool, typer.Option(help="Keep every write on disk, for the next start.")] = True,
    insecure: Annotated[bool, typer.Option("--insecure", help="Do without a password beyond this machine.")] = False,
) -> None:
    """Run a site's Redis-protocol server; its password is taken from REDIS_PASSWORD."""
    password = os.environ.get(PASSWORD_VARIABLE, "")
    addresses = parse_addresses(bind)
    check_access(addresses, password, insecure=insecure)
    check_folder(directory)
    settings = server_settings(
        directory.resolve(), port, addresses, max_memory, append_only=append_only, password=password
    )
    become_server(find_server(), settings)


def parse_addresses(text: str) -> list[str]:
    """Addresses as the server writes them; JobError if there is none."""
    addresses = [address for word in text.replace(",", " ").split() for address in _EVERY.get(word, (word,))]
    if not addresses:
        raise JobError("--bind names no address")
    return addresses


def check_access(addresses: Sequence[str], password: str, *, insecure: bool) -> None:
    """JobError unless everyone who can connect must know the password, or was let in explicitly."""
    if len(os.fsencode(password)) > LONGEST_PASSWORD:
        raise JobError(f"{PASSWORD_VARIABLE} has more than {LONGEST_PASSWORD} bytes")
    beyond = [address for address in addresses if not _is_loopback(address)]
    if beyond and not password and not insecure:
        raise JobError(
            f"anyone could connect to {beyond[0]} without a password: set {PASSWORD_VARIABLE}, "
            "or say --insecure on a network you trust"
        )


def check_folder(directory: Path) -> None:
    """EnvironmentProblem unless files can be kept in the folder."""
    if not directory.is_dir():
        raise EnvironmentProblem(f"--dir {directory} is not a folder: make it, or mount a volume there")
    try:
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise EnvironmentProblem(
            f"--dir {directory} cannot be written by user {os.getuid()}: {error.strerror}; "
            "change its owner, or mount a volume there"
        ) from error


def server_settings(
    directory: Path, port: int, addresses: Sequence[str], max_memory: int, *, append_only: bool, password: str
) -> dict[str, str]:
    """What the server is told, by its own names; nothing that must not be lost may be evicted."""
    settings = {
        "bind": " ".join(map(_quoted, addresses)),
        "port": str(port),
        "protected-mode": "yes" if password or all(map(_is_loopback, addresses)) else "no",
        "dir": _quoted(str(directory)),
        "save": '""',
        "appendonly": "yes" if append_only else "no",
        "appendfsync": "everysec",
        "maxmemory": str(max_memory),
        "maxmemory-policy": "noeviction",
        "databases": "1",
        "daemonize": "no",
    }
    return settings | ({"requirepass": _quoted(password)} if password else {})


def become_server(server: Path, settings: Mapping[str, str]) -> NoReturn:
    """Replace this process by the server.

    The settings go through its standard input: in the list of processes anyone could read the password.
    """
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", encoding="ascii") as pipe:  # fits the pipe: paths and the password are short
        pipe.writelines(f"{name} {value}\n" for name, value in settings.items())
    os.dup2(reader, 0)
    environment = {name: value for name, value in os.environ.items() if name != PASSWORD_VARIABLE}
    os.execve(server, [server.name, "-"], environment)  # noqa: S606 - the binary found above


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address.removeprefix("-")).is_loopback
    except ValueError:
        return address.removeprefix("-") == "localhost"


def _quoted(text: str) -> str:
    """A word that the server reads back as it was, whatever is in it."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(text)) + '"'
