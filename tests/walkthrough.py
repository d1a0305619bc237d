"""Does what a page of the documentation tells its reader to do, in order, and compares what the page says comes out.

Blocks marked `bash` are commands, blocks with a title are files to write, and a block marked `text`, or `<!-- output
-->`, right after commands is their output. A comment before a block says what cannot be seen: `<!-- keeps running;
until: COMMAND -->` starts commands that do not end and waits until another succeeds, `<!-- after Ctrl-C -->` ends them
first, `<!-- output: shape -->` is for output whose numbers depend on the moment.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>.+?) -->\n)?```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$", re.M | re.S
)
_MARK = "@@ block "
_END = "end() { for job in $(jobs -p); do kill -INT $job || true; wait $job || true; done; }"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
_NEAR = 0.05
"""How far a share from 0 to 1 may be from the one on the page: last digits differ between machines."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page: `kind` is its language, `note` what the comment before it says."""

    kind: str
    text: str
    title: str | None
    note: str

    @property
    def is_output(self) -> bool:
        """Whether it is what the commands before it print."""
        return self.kind == "text" or self.note.startswith("output")


def blocks(page: Path) -> list[Block]:
    """All blocks of a page that are commands, files or output."""
    found = [Block(m["kind"], m["text"], m["title"], m["note"] or "") for m in _BLOCK.finditer(page.read_text())]
    return [block for block in found if block.title or block.kind == "bash" or block.is_output]


def follow(page: Path, folder: Path, port: int, timeout: float) -> None:
    """Do in `folder` all that the page says; AssertionError says which command failed, or which output differs.

    What the page runs at its usual port runs at `port` and those after it, because others may use this machine.
    """
    wanted = blocks(page)
    code, output = _run(_script(wanted, port), folder, timeout)
    assert code == 0, f"{page.name}: a command failed, or took too long\n{output[-4000:]}"
    said = _by_block(output)
    for index, block in enumerate(wanted):
        if block.is_output:
            missing = _missing(block.text, said[index - 1], shape_only=block.note == "output: shape")
            assert missing is None, f"{page.name} shows\n{missing}\nand what came out is\n{said[index - 1]}"


def _run(script: str, folder: Path, timeout: float) -> tuple[int, str]:
    """The exit code of a script and what it wrote; whatever it started ends with it."""
    command = ["/bin/bash", "-c", script]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, start_new_session=True, **pipe) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            output, _ = process.communicate()
            return -1, output
        return process.returncode, output


def _script(wanted: list[Block], port: int) -> str:
    lines = ["set -euo pipefail", _END, "trap end EXIT"]
    for index, block in enumerate(wanted):
        lines.append(f"echo; echo '{_MARK}{index}'")
        if block.title:
            lines.append(f"cat > '{block.title}' <<'@@ end'\n{block.text}@@ end")
        elif block.kind == "bash":
            lines.append(_elsewhere(_commands(block), port))
    return "\n".join(lines)


def _commands(block: Block) -> str:
    if not block.note.startswith("keeps running; until: "):
        return f"end\n{block.text}" if block.note == "after Ctrl-C" else block.text
    until = block.note.removeprefix("keeps running; until: ")
    # `kill -0` ends the wait when the command has ended, which it should not; what it said is in the log.
    wait = f"until {until} >/dev/null 2>&1; do kill -0 $! || {{ cat running.log; exit 1; }}; sleep 0.2; done"
    return f"{block.text.strip()} >running.log 2>&1 &\n{wait}"


def _elsewhere(commands: str, port: int) -> str:
    return commands.replace("concord up ", f"concord up --base-port {port} ").replace(":8100", f":{port}")


def _by_block(output: str) -> dict[int, str]:
    parts = re.split(rf"^{_MARK}(\d+)\n", output, flags=re.M)
    return {int(index): text for index, text in zip(parts[1::2], parts[2::2], strict=True)}


def _missing(expected: str, found: str, *, shape_only: bool) -> str | None:
    """The first line of the page that did not come out, in its order; None if all did. A line `...` is any lines."""
    came = iter(found.splitlines())
    for line in expected.splitlines():
        if line.strip() not in ("", "...") and not any(_alike(line, other, shape_only) for other in came):
            return line
    return None


def _alike(line: str, other: str, shape_only: bool) -> bool:
    if _plain(line) != _plain(other):
        return False
    pairs = zip(_NUMBER.findall(line), _NUMBER.findall(other), strict=True)
    return shape_only or all(abs(float(a) - float(b)) <= _NEAR for a, b in pairs if _is_share(a))


def _is_share(number: str) -> bool:
    return "." in number and float(number) <= 1


def _plain(line: str) -> str:
    """A line with any number for each number, any bar for each bar, and one space between words."""
    return " ".join(_NUMBER.sub("#", re.sub(r"[█·─…]+", "-", line)).split())
