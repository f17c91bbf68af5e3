"""The page for the person on call: one file, no asset from anywhere, no script or style but its own."""

import hashlib
import re
from base64 import b64encode
from pathlib import Path


class Page:
    """``page.html``, and the headers it is served with."""

    def __init__(self) -> None:
        self.body = (Path(__file__).parent / "page.html").read_bytes()
        self.headers = {
            "content-security-policy": "; ".join(
                [
                    "default-src 'none'",
                    f"script-src {self._hash_of(b'script')}",
                    f"style-src {self._hash_of(b'style')}",
                    "connect-src 'self'",
                    "img-src data:",
                    "base-uri 'none'",
                    "form-action 'none'",
                    "frame-ancestors 'none'",
                ]
            ),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cache-control": "no-cache",
        }

    def _hash_of(self, element: bytes) -> str:
        """The one element of that name, as the policy allows it."""
        (content,) = re.findall(rb"<%b>(.*?)</%b>" % (element, element), self.body, re.DOTALL)
        return f"'sha256-{b64encode(hashlib.sha256(content).digest()).decode()}'"
