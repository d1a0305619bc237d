"""Become another program that ends when its parent does, even if the parent is killed (Linux).

Run as a script, `leash.py PARENT_PID PROGRAM ARGUMENTS...`, with the standard library alone: a hook between
fork and exec would run Python in a copy of a process with threads, which is not safe.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Ask for SIGTERM at the death of `parent`, then become `command`."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the parent was gone before this process could be tied to it")
    os.execv(command[0], command)  # noqa: S606 - becoming the given program is what this is for


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
