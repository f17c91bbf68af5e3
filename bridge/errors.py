"""Every way the bridge fails on purpose, and whether trying again can help.

BridgeError
├── ConfigurationError      a wrong, unknown or contradictory setting: names key, value, remedy      no
├── TopicsError             a topic is missing or weaker than declared, or can't be made             no
├── KafkaUnavailable        no broker takes a connection, or none answers in time: says why        yes
│   ├── ConnectionEnded     a connection to a broker was closed                                      yes
│   ├── UnreadableAnswer    what a broker sent is no answer to what was asked                        yes
│   └── UnsupportedBroker   it offers no version of a request that the bridge knows                  yes
├── EmbeddedError           the embedded Kafka or registry can't be had or doesn't start             no
├── RegistryError           the Schema Registry refuses, or is none                                  no
│   └── RegistryUnavailable it is away, too slow or in trouble                                       yes
├── ReplayError             records, a topic, a group or a run are not as what was asked needs them   no
├── ProbeError              a report pushed to a deployment was not seen on its topic                yes
├── ServerError             a listener ended without being told to                                   yes
├── Undecodable             a record's value is no event that a consumer can read                    no
└── DeliveryError           a callback can't be stored durably in time: answered 503
    ├── Overloaded          refused before any work was done for it                                  yes
    ├── DeadlineExceeded    neither Kafka nor the spool took it in time                              yes
    └── SpoolError
        ├── SpoolFull       its bound or the disk's is reached                                       yes
        ├── SpoolFailed     the disk failed; the file is moved aside                                 yes
        ├── SpoolBusy       another process owns the directory                                       yes
        └── SpoolTooNew     written by a newer bridge; nothing was touched                           no
"""

from typing import ClassVar


class BridgeError(Exception):
    """Root of all; ``retriable`` says whether the same request can succeed later."""

    retriable: ClassVar[bool] = False


class ConfigurationError(BridgeError):
    """A setting stops the start. The message names the key, the value (secrets masked) and the remedy."""


class TopicsError(BridgeError):
    """A topic is missing, weaker than declared, or could not be created."""


class KafkaUnavailable(BridgeError):
    """No broker takes a connection, or no broker or leader answers in time.

    The message says why, and which key to look at where that can be known.
    """

    retriable = True


class ConnectionEnded(KafkaUnavailable):
    """A connection was closed, by the broker, by the network or because what came on it made no sense."""


class UnreadableAnswer(KafkaUnavailable):
    """Bytes of a broker that are no answer to what was asked."""


class UnsupportedBroker(KafkaUnavailable):
    """A broker offers no version of a request that the bridge knows."""


class EmbeddedError(BridgeError):
    """The embedded Kafka or registry can't be had, or does not come up. The message says what to do."""


class RegistryError(BridgeError):
    """The Schema Registry refuses what was asked, or is none. The message names address, subject and remedy."""


class RegistryUnavailable(RegistryError):
    """No address of the Schema Registry gave an answer of use: away, too slow, or in trouble itself."""

    retriable = True


class ReplayError(BridgeError):
    """What was asked of the topics can't be had: a topic, a range, a group or a run is not there, or not allowed."""


class ProbeError(BridgeError):
    """A report that was pushed to a deployment was not read back from its topic in time. The message says how far it came."""

    retriable = True


class ServerError(BridgeError):
    """A listener ended without being told to; the process ends, so that it is started anew."""

    retriable = True


class Undecodable(BridgeError):
    """A record's value is no event that a consumer can read. The message says what to do, and holds none of the data."""


class DeliveryError(BridgeError):
    """A callback could not be stored durably in time; it is answered 503 and the provider pushes it again."""

    retriable = True


class Overloaded(DeliveryError):
    """Refused early: what waits already fills its bound."""


class DeadlineExceeded(DeliveryError):
    """Neither Kafka acknowledged nor the spool stored every record within the deadline."""


class SpoolError(DeliveryError):
    """The spool can't take or give what was asked."""


class SpoolFull(SpoolError):
    """``spool.max_bytes`` or ``spool.min_free_bytes`` is reached."""


class SpoolFailed(SpoolError):
    """The disk failed under the spool; the file was moved aside and a new one is tried."""


class SpoolBusy(SpoolError):
    """Another process owns the spool directory."""


class SpoolTooNew(SpoolError):
    """The spool was written by a newer bridge; nothing in it was touched."""

    retriable = False
