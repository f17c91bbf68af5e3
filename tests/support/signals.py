"""What a program that a test starts, or runs in its own process, does of itself when it is told to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_heeded() -> Iterator[None]:
    """Make Ctrl-C end what is started or run in this block, as it does in a terminal; to be entered in the main thread.

    A shell ignores SIGINT for what it runs in the background, and so may whoever starts the tests. A program inherits that, and
    Python then raises no KeyboardInterrupt: who waits for it to end by Ctrl-C waits for ever. A handler of this process becomes
    the default action in each program that it starts, so nothing has to be done between fork and exec.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
