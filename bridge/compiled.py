"""The part that a C compiler made faster, ``_compiled.pyx``, where there was one when the bridge was installed.

Without it everything works as well, only slower: whoever uses it has the same in Python. ``BRIDGE_COMPILED=0`` does without it.
"""

import os
from typing import TYPE_CHECKING, Final

__all__ = ["COMPILED", "module"]

if TYPE_CHECKING:
    from bridge import _compiled as module
else:
    try:
        from bridge import _compiled as module
    except ImportError:
        module = None

COMPILED: Final = module is not None and os.environ.get("BRIDGE_COMPILED") != "0"
