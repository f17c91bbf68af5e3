"""A token endpoint of an OIDC provider: client credentials for tokens that may live for seconds, and all the ways to refuse.

with TokenEndpoint(lambda seconds: token("kim", seconds)) as endpoint:
settings = {"kafka.sasl_oauth_token_endpoint": endpoint.url, ...}
endpoint.answer = 503, b"busy"
"""

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl

CLIENT, SECRET = "the bridge", "s3cret+/="


class Asked(NamedTuple):
    """A request: who asks by HTTP Basic, and what the form says."""

    basic: str
    form: dict[str, str]


class TokenEndpoint:
    """See the module's head.

    Args:
        issue: Makes a token that is good for so many seconds.
        context: For TLS; without it there is none.

    Attributes:
        seconds: How long a token is good.
        answer: Status and body of every answer; None: a token for whoever shows the right credentials.
        takes: Where credentials may be: ``basic``, ``form``.
        asked: All requests.
        issued: All tokens.
        gate: While it is not set, nothing is answered.
    """

    def __init__(self, issue: Callable[[float], str], context: ssl.SSLContext | None = None) -> None:
        self._issue = issue
        self._scheme = "https" if context else "http"
        self.seconds: Any = 900
        self.answer: tuple[int, bytes] | None = None
        self.takes = {"basic", "form"}
        self.secret = SECRET
        self.asked: list[Asked] = []
        self.issued: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/oauth2/token"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
                scheme, _, pair = self.headers.get("Authorization", "").partition(" ")
                basic = base64.b64decode(pair).decode() if scheme == "Basic" else ""
                endpoint.gate.wait(30)
                status, body = endpoint.respond(Asked(basic, form))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def respond(self, asked: Asked) -> tuple[int, bytes]:
        """What is answered."""
        self.asked.append(asked)
        if self.answer is not None:
            return self.answer
        id_, secret = "the+bridge", self.secret.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
        by_basic = "basic" in self.takes and asked.basic == f"{id_}:{secret}"
        in_form = (asked.form.get("client_id"), asked.form.get("client_secret")) == (CLIENT, self.secret)
        if not by_basic and not ("form" in self.takes and in_form):
            return 401, b'{"error": "invalid_client", "error_description": "who is s3cret+/=?"}'
        self.issued.append(self._issue(float(self.seconds)))
        answer = {"access_token": self.issued[-1], "token_type": "Bearer", "expires_in": self.seconds}
        return 200, json.dumps(answer).encode()
