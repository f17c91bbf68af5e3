"""Connecting: each bootstrap server, the login, and each broker that the cluster advertises."""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.conn import collect_hosts
from aiokafka.protocol.metadata import MetadataRequest

from bridge.config import Kafka
from bridge.errors import BridgeError, ConfigurationError, KafkaUnavailable
from bridge.kafka import messages
from bridge.kafka.admin import connected
from bridge.kafka.connection import client_arguments, reason
from bridge.kafka.wire import CONNECTION_FAILURES, connect
from bridge.operate.doctor.findings import Finding, Outcome
from bridge.operate.doctor.session import CONNECT_SECONDS, Session

_PROBE_SECONDS: Final = 3.0
_ILLEGAL_SASL_STATE: Final = 34
# In the order in which they are advised. PLAIN would send the password as it is.
_WITHOUT_TLS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256")
_MECHANISMS: Final = (*_WITHOUT_TLS, "PLAIN")


class UnreachableError(BridgeError):
    """No bootstrap server answers, or each refuses the login."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.seen)
        self.finding = finding


async def connection(session: Session) -> Finding:
    """Each bootstrap server takes a connection and the login, and describes the cluster."""
    name = "connection"
    answers = await _asked(session.settings.kafka)
    advice: dict[str, Any] = {}
    if all(isinstance(answer, str) for answer in answers.values()):
        listener = await _listener(session.settings.kafka)
        advice = _keys(session.settings.kafka, listener) if listener is not None else {}
        if advice:
            session.apply(advice)
            answers = await _asked(session.settings.kafka)
        if all(isinstance(answer, str) for answer in answers.values()):
            why = _compared(session.settings.kafka, listener)
            raise UnreachableError(
                Finding(name, Outcome.BROKEN, _reasons(answers), why, advice, facts={"servers": answers})
            )
    failed = {server: answer for server, answer in answers.items() if isinstance(answer, str)}
    slowest = max(answer for answer in answers.values() if not isinstance(answer, str))
    facts = {"servers": dict(answers)}
    seen = f"{len(answers) - len(failed)} of {len(answers)} bootstrap servers answer, within {1000 * slowest:.0f} ms"
    if failed:
        why = "The others are used meanwhile. Correct kafka.bootstrap_servers, or start that server."
        return Finding(name, Outcome.BROKEN, f"{seen}; {_reasons(failed)}", why, advice, facts=facts)
    if advice:
        why = "The listener speaks another protocol, or offers other mechanisms, than is configured."
        return Finding(name, Outcome.ADVICE, seen, why, advice, facts=facts)
    return Finding(name, Outcome.GOOD, seen, facts=facts)


def _compared(kafka: Kafka, listener: "Listener | None") -> str:
    """What the listener speaks, if that is not what is configured."""
    if listener is None or (
        listener.protocol == kafka.security_protocol and kafka.sasl_mechanism in listener.mechanisms
    ):
        return ""
    return f"The listener {listener}. Compare kafka.security_protocol and kafka.sasl_mechanism."


async def _asked(kafka: Kafka) -> dict[str, float | str]:
    """How many seconds each bootstrap server took to connect, log in and answer; or why it did not."""
    servers = collect_hosts(kafka.bootstrap_servers, randomize=False)
    answers = await asyncio.gather(*(_ask(kafka, host, port) for host, port, _ in servers))
    return {f"{host}:{port}": answer for (host, port, _), answer in zip(servers, answers, strict=True)}


async def _ask(kafka: Kafka, host: str, port: int) -> float | str:
    began = time.perf_counter()
    try:
        opened = await connect(host, port, client_arguments(kafka), CONNECT_SECONDS)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                answer = await opened.ask_aiokafka(MetadataRequest([], allow_auto_topic_creation=False))
        finally:
            opened.abort("not used any more")
        if not answer.brokers:
            raise KafkaUnavailable("the answer names no broker")
    except CONNECTION_FAILURES as error:
        if isinstance(error, ConfigurationError):
            raise
        return reason(error)
    return round(time.perf_counter() - began, 3)


def _reasons(answers: Mapping[str, float | str]) -> str:
    return "; ".join(f"{server}: {why}" for server, why in answers.items())


# --- which protocol and mechanism -------------------------------------------------------------------------------------


class Listener(NamedTuple):
    """What a listener speaks."""

    tls: bool
    sasl: bool
    mechanisms: Sequence[str]

    @property
    def protocol(self) -> str:
        """By its name in ``kafka.security_protocol``."""
        return ("SASL_" if self.sasl else "") + ("SSL" if self.tls else "PLAINTEXT")

    def __str__(self) -> str:
        offered = f" and offers {', '.join(self.mechanisms)}" if self.mechanisms else ""
        return f"speaks {self.protocol}{offered}"


async def _listener(kafka: Kafka) -> Listener | None:
    """What the first bootstrap server speaks that speaks Kafka's protocol at all; None if none does."""
    for host, port, _ in collect_hosts(kafka.bootstrap_servers, randomize=False):
        for tls in (False, True):
            offered = await _offered(kafka, host, port, tls=tls)
            if offered is not None:
                return Listener(tls, offered.code != _ILLEGAL_SASL_STATE, offered.offered)
    return None


async def _offered(kafka: Kafka, host: str, port: int, *, tls: bool) -> messages.SaslMechanisms | None:
    """Ask a listener, without a login, which SASL mechanisms it offers; None if it does not answer in Kafka's protocol."""
    arguments: dict[str, Any] = {"client_id": kafka.client_id, "security_protocol": "SSL" if tls else "PLAINTEXT"}
    if tls:
        # The answer is only advice, and nothing secret goes over this connection.
        arguments["ssl_context"] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        opened = await connect(host, port, arguments, _PROBE_SECONDS)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                mechanism = messages.string(kafka.sasl_mechanism)
                return messages.read_sasl_handshake(await opened.ask(messages.SASL_HANDSHAKE, 1, mechanism))
        finally:
            opened.abort("not used any more")
    except CONNECTION_FAILURES:
        return None


def _keys(kafka: Kafka, listener: Listener) -> dict[str, Any]:
    """The keys by which the listener can be used with the login that is configured. None of them makes the login weaker."""
    advice: dict[str, Any] = {}
    if listener.sasl != kafka.security_protocol.startswith("SASL"):
        return advice  # needs more than a word: a user name and a password, or none
    if listener.tls and "SSL" not in kafka.security_protocol:
        advice["kafka.security_protocol"] = listener.protocol
    if listener.sasl and kafka.sasl_mechanism in _MECHANISMS and kafka.sasl_mechanism not in listener.mechanisms:
        usable = _MECHANISMS if listener.tls else _WITHOUT_TLS
        best = [mechanism for mechanism in usable if mechanism in listener.mechanisms]
        advice |= {"kafka.sasl_mechanism": best[0]} if best else {}
    return advice


# --- every broker -----------------------------------------------------------------------------------------------------


async def brokers(session: Session) -> Finding:
    """Each advertised broker takes a connection and the login, and offers the requests that the bridge uses."""
    name = "brokers"
    async with connected(session.settings.kafka) as admin:
        cluster = await admin.metadata([])
    session.brokers = {node: (host, port) for node, host, port, *_ in cluster.brokers}
    reasons = await asyncio.gather(*(_usable(session, node) for node in session.brokers))
    session.usable = {node for node, why in zip(session.brokers, reasons, strict=True) if not why}
    failed = {
        f"broker {node}, advertised as {session.brokers[node][0]}:{session.brokers[node][1]}": why
        for node, why in zip(session.brokers, reasons, strict=True)
        if why
    }
    facts = {"brokers": {str(node): f"{host}:{port}" for node, (host, port) in session.brokers.items()}}
    seen = f"{len(session.brokers) - len(failed)} of {len(session.brokers)} advertised brokers answer"
    if failed:
        why = (
            "The bridge has to reach each broker by the name that it advertises. Look at the brokers' "
            "advertised.listeners, and at the network between here and there."
        )
        return Finding(name, Outcome.BROKEN, f"{seen}; {_reasons(failed)}", why, facts=facts)
    return Finding(name, Outcome.GOOD, seen, facts=facts)


async def _usable(session: Session, node: int) -> str:
    """Why the broker can't be used; empty if it can."""
    try:
        opened = await session.connection(node)
        messages.common_version(messages.PRODUCE, opened.versions)
    except ConfigurationError:
        raise
    except CONNECTION_FAILURES as error:
        return reason(error)
    return ""
