"""What connections to Kafka, the registry and the callback address have in common: certificates, names, and who is asked."""

import socket
import ssl
from collections.abc import Iterator


def client_context(cafile: str) -> ssl.SSLContext:
    """TLS for a client that checks the other end's certificate and name.

    Python 3.13 turned two flags of OpenSSL on. Without them the checks are those of Python 3.11, of OpenSSL's own default and of
    librdkafka: a certificate without key identifiers (RFC 5280 asks for them, many private authorities leave them out) is
    good for `serve` exactly where it is good for `replay`.

    Args:
        cafile: the authorities to trust (PEM); empty: the system's.

    Raises:
        OSError: the file can't be used.
    """
    context = ssl.create_default_context(cafile=cafile or None)
    context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    return context


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, one after the other."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def why_unresolved(host: str, error: socket.gaierror, keys: str) -> str:
    """Why a name has no address, in words.

    Args:
        host: the name.
        error: what ``getaddrinfo`` raised.
        keys: where the name comes from.
    """
    if error.errno in {socket.EAI_NONAME, socket.EAI_NODATA}:
        return f"DNS has no address for {host}; correct {keys}, or create the name"
    if error.errno == socket.EAI_AGAIN:
        return no_dns_answer(host)
    return f"DNS failed for {host}: {error.strerror}; look at {keys}"


def no_dns_answer(host: str) -> str:
    """That no DNS server answers, and what to check."""
    return (
        f"the DNS server does not answer for {host}; check /etc/resolv.conf and that the server can be reached from here. In "
        "Kubernetes a NetworkPolicy must let this pod reach the DNS pods' port (networkPolicy.dnsPorts)"
    )
