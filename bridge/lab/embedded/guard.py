"""Runs a program that must not outlive who asked for it: ``python guard.py PARENT_PID PROGRAM ARGUMENT…``.

Asks the kernel to kill this process when its parent dies, then becomes the program: the wish survives
``exec``, and no process stays in between. It runs as a file of its own, with nothing but the standard
library, so that no code has to run between fork and exec in a parent that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the wish, see that the parent was not gone before it held, become the program."""
    parent = int(sys.argv[1])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606  exactly the program that was asked for


if __name__ == "__main__":
    main()
