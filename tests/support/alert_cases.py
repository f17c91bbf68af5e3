"""For each alert a fault, as series a Prometheus would see them, and the alerts that fire by it.

Every case begins well, has its fault from minute 30 to minute 100, and is well again until minute 240.
"""

import re
from typing import NamedTuple

MINUTES, BEGINS, ENDS = 240, 30, 100
"""Of a case: how long, and its fault's beginning and end."""
MIB, GIB = 1 << 20, 1 << 30


def steady(value: float, minutes: int = MINUTES) -> str:
    """In Prometheus's notation: the same, a sample a minute."""
    return growing(0, value, minutes)


def growing(step: float, start: float = 0, minutes: int = MINUTES) -> str:
    """By that much a minute."""
    return f"{start:.0f}{step:+}x{minutes - 1}"


def meanwhile(well: float, ill: float) -> str:
    """A gauge during the fault, and before and after it."""
    return " ".join((steady(well, BEGINS), steady(ill, ENDS - BEGINS), steady(well, MINUTES - ENDS)))


def rising(step: float, well: float = 0) -> str:
    """A gauge that grows during the fault."""
    return " ".join((steady(well, BEGINS), growing(step, well, ENDS - BEGINS), steady(well, MINUTES - ENDS)))


def counting(step: float, well: float = 0) -> str:
    """A counter that grows so much a minute during the fault, and ``well`` a minute else."""
    first, second = well * BEGINS, well * BEGINS + step * (ENDS - BEGINS)
    return " ".join(
        (growing(well, 0, BEGINS), growing(step, first, ENDS - BEGINS), growing(well, second, MINUTES - ENDS))
    )


HEALTHY = {
    'chatapp_bridge_topic_settings_drift{topic="chatapp.status.v1"}': steady(0),
    'chatapp_bridge_secrets_loaded{source="path"}': steady(1),
    "up": steady(1),
    "chatapp_bridge_build_info": steady(1),
    "chatapp_bridge_ready": steady(1),
    'chatapp_bridge_callbacks_total{answer="200"}': growing(6000),
    'chatapp_bridge_callbacks_total{answer="503"}': steady(0),
    'chatapp_bridge_callbacks_total{answer="408"}': steady(0),
    'chatapp_bridge_callbacks_total{answer="413"}': steady(0),
    "chatapp_bridge_callbacks_retired_secret_total": steady(0),
    "chatapp_bridge_callbacks_refused_by_network_total": steady(0),
    "chatapp_bridge_callbacks_rate_limited_total": steady(0),
    "chatapp_bridge_start_timestamp_seconds": steady(1),
    "chatapp_bridge_last_callback_timestamp_seconds": growing(60),
    "chatapp_bridge_reports_received_total": growing(6000),
    "chatapp_bridge_reports_recovered_total": steady(0),
    "chatapp_bridge_spool_checked": steady(1),
    'chatapp_bridge_reports_published_total{topic="chatapp.status.v1"}': growing(6000),
    'chatapp_bridge_reports_published_total{topic="chatapp.status.quarantine.v1"}': steady(0),
    'chatapp_bridge_reports_quarantined_total{reason="no_status"}': steady(0),
    'chatapp_bridge_reports_quarantined_total{reason="too_many_items"}': steady(0),
    "chatapp_bridge_reports_waiting": steady(0),
    "chatapp_bridge_reports_dead_lettered_total": steady(0),
    "chatapp_bridge_reports_refused_total": steady(0),
    "chatapp_bridge_oldest_waiting_seconds": steady(0),
    'chatapp_bridge_ack_latency_seconds_bucket{le="0.01"}': growing(6000),
    'chatapp_bridge_ack_latency_seconds_bucket{le="1.5"}': growing(6000),
    'chatapp_bridge_ack_latency_seconds_bucket{le="2.0"}': growing(6000),
    'chatapp_bridge_ack_latency_seconds_bucket{le="+Inf"}': growing(6000),
    "chatapp_bridge_kafka_up": steady(1),
    "chatapp_bridge_kafka_refused_lanes": steady(0),
    'chatapp_bridge_lanes{state="healthy"}': steady(15),
    'chatapp_bridge_lanes{state="degraded"}': steady(0),
    'chatapp_bridge_schema_ids{state="missing"}': steady(0),
    "chatapp_bridge_spool_writable": steady(1),
    "chatapp_bridge_spool_rows": steady(0),
    "chatapp_bridge_spool_bytes": steady(MIB),
    "chatapp_bridge_spool_limit_bytes": steady(10 * GIB),
    "chatapp_bridge_spool_free_bytes": steady(50 * GIB),
    "chatapp_bridge_spool_min_free_bytes": steady(256 * MIB),
    "chatapp_bridge_spool_write_errors_total": steady(0),
    "chatapp_bridge_spool_damaged_rows_total": steady(0),
    "chatapp_bridge_spool_damaged_files": steady(0),
    "chatapp_bridge_spool_dead_letter_reports": steady(0),
}
"""One replica, 100 reports a second, all on Kafka at once."""


def gone(values: str) -> str:
    """What a healthy series looks like when its process is not there during the fault."""
    start, step = map(float, re.fullmatch(r"([\d.e+]+?)\+([\d.]+)x\d+", values).groups())  # type: ignore[union-attr]
    well_again = growing(step, start + step * ENDS, MINUTES - ENDS)
    return f"{growing(step, start, BEGINS)} stale _x{ENDS - BEGINS - 2} {well_again}"


GONE = {series: gone(values) for series, values in HEALTHY.items()}


class Case(NamedTuple):
    """A fault: the series that differ from the healthy ones.

    ``fires`` at minute ``at``; that alert is not there yet at minute ``not_yet``, its ``for`` being what it is.
    """

    series: dict[str, str]
    fires: set[str]
    at: int = 95
    not_yet: int = BEGINS


CASES = {
    "ChatappBridgeRefusing": Case(
        {'chatapp_bridge_callbacks_total{answer="503"}': counting(60)}, {"ChatappBridgeRefusing"}
    ),
    "ChatappBridgeNotReady": Case({"chatapp_bridge_ready": meanwhile(1, 0)}, {"ChatappBridgeNotReady"}),
    "ChatappBridgeDown": Case(
        GONE | {"up": meanwhile(1, 0)},
        {"ChatappBridgeDown", "ChatappBridgeAbsent"},
        not_yet=BEGINS + 1,
    ),
    "ChatappBridgeAbsent": Case(GONE, {"ChatappBridgeAbsent"}, not_yet=BEGINS + 4),
    "ChatappBridgeReportsUnreconciled": Case(
        {"chatapp_bridge_reports_recovered_total": meanwhile(0, 1)},
        {"ChatappBridgeReportsUnreconciled"},
        not_yet=BEGINS + 1,
    ),
    "ChatappBridgeSpooling": Case(
        {"chatapp_bridge_spool_rows": meanwhile(0, 100)}, {"ChatappBridgeSpooling"}, not_yet=BEGINS + 4
    ),
    "ChatappBridgeSpoolOld": Case(
        {"chatapp_bridge_oldest_waiting_seconds": rising(60)}, {"ChatappBridgeSpoolOld"}, at=95, not_yet=BEGINS + 60
    ),
    "ChatappBridgeSpoolFilling, full": Case(
        {"chatapp_bridge_spool_bytes": meanwhile(MIB, 9 * GIB)}, {"ChatappBridgeSpoolFilling"}, not_yet=BEGINS + 4
    ),
    "ChatappBridgeSpoolFilling, soon": Case(
        {"chatapp_bridge_spool_bytes": rising(60 * MIB, MIB), "chatapp_bridge_spool_rows": rising(600)},
        {"ChatappBridgeSpooling", "ChatappBridgeSpoolFilling"},
    ),
    "ChatappBridgeDiskFilling, full": Case(
        {"chatapp_bridge_spool_free_bytes": meanwhile(50 * GIB, 400 * MIB)},
        {"ChatappBridgeDiskFilling"},
        not_yet=BEGINS + 4,
    ),
    "ChatappBridgeDiskFilling, soon": Case(
        {"chatapp_bridge_spool_free_bytes": rising(-40 * MIB, 5 * GIB)}, {"ChatappBridgeDiskFilling"}
    ),
    "ChatappBridgeSpoolNotWritable": Case(
        {"chatapp_bridge_spool_writable": meanwhile(1, 0)}, {"ChatappBridgeSpoolNotWritable"}
    ),
    "ChatappBridgeSpoolErrors": Case(
        {"chatapp_bridge_spool_write_errors_total": counting(1)}, {"ChatappBridgeSpoolErrors"}, not_yet=BEGINS - 1
    ),
    "ChatappBridgeSpoolDamaged, file": Case(
        {"chatapp_bridge_spool_damaged_files": meanwhile(0, 1)}, {"ChatappBridgeSpoolDamaged"}, not_yet=BEGINS - 1
    ),
    "ChatappBridgeSpoolDamaged, rows": Case(
        {"chatapp_bridge_spool_damaged_rows_total": counting(0.1)}, {"ChatappBridgeSpoolDamaged"}, not_yet=BEGINS - 1
    ),
    "ChatappBridgeSpoolUnchecked": Case(
        {"chatapp_bridge_spool_checked": meanwhile(1, 0)}, {"ChatappBridgeSpoolUnchecked"}, not_yet=BEGINS + 29
    ),
    "ChatappBridgeReportsUnreconciled, while the spool is checked": Case(
        {"chatapp_bridge_reports_recovered_total": meanwhile(0, 1), "chatapp_bridge_spool_checked": meanwhile(1, 0)},
        {"ChatappBridgeSpoolUnchecked"},
    ),
    "ChatappBridgeDeadLetters": Case(
        {"chatapp_bridge_spool_dead_letter_reports": meanwhile(0, 3)}, {"ChatappBridgeDeadLetters"}, not_yet=BEGINS - 1
    ),
    "ChatappBridgeSpoolLeftBehind": Case(
        {
            'chatapp_bridge_spool_rows{instance="gone:8081"}': (
                f"{steady(0, BEGINS)} 7 stale _x{ENDS - BEGINS - 3} {steady(0, MINUTES - ENDS)}"
            )
        },
        {"ChatappBridgeSpoolLeftBehind"},
        not_yet=BEGINS + 9,
    ),
    "a pod that comes back at another address, and drains what it had": Case(
        {
            'chatapp_bridge_spool_rows{instance="gone:8081",pod="bridge-1"}': f"{steady(0, BEGINS - 3)} 7x2 stale",
            'chatapp_bridge_spool_rows{instance="back:8081",pod="bridge-1"}': f"_x{BEGINS} {steady(0, MINUTES - BEGINS - 1)}",
        },
        set(),
    ),
    "ChatappBridgeKafkaUnavailable": Case(
        {
            "chatapp_bridge_kafka_up": meanwhile(1, 0),
            'chatapp_bridge_lanes{state="degraded"}': meanwhile(0, 12),
            "chatapp_bridge_spool_rows": rising(600),
        },
        {"ChatappBridgeKafkaUnavailable", "ChatappBridgeSpooling"},
        not_yet=BEGINS + 1,
    ),
    "ChatappBridgeKafkaRefuses": Case(
        {"chatapp_bridge_kafka_refused_lanes": meanwhile(0, 12)}, {"ChatappBridgeKafkaRefuses"}, not_yet=BEGINS + 1
    ),
    "ChatappBridgeLanesDegraded": Case(
        {'chatapp_bridge_lanes{state="degraded"}': meanwhile(0, 1)}, {"ChatappBridgeLanesDegraded"}, not_yet=BEGINS + 9
    ),
    "ChatappBridgeSchemaIds": Case(
        {'chatapp_bridge_schema_ids{state="missing"}': meanwhile(0, 1)}, {"ChatappBridgeSchemaIds"}, not_yet=BEGINS + 4
    ),
    "ChatappBridgeTopicSettingsDrift": Case(
        {'chatapp_bridge_topic_settings_drift{topic="chatapp.status.v1"}': meanwhile(0, 2)},
        {"ChatappBridgeTopicSettingsDrift"},
        not_yet=BEGINS + 4,
    ),
    "ChatappBridgeSecretsUnusable": Case(
        {'chatapp_bridge_secrets_loaded{source="path"}': meanwhile(1, 0)},
        {"ChatappBridgeSecretsUnusable"},
        not_yet=BEGINS + 1,
    ),
    "ChatappBridgeRetiredSecret": Case(
        {"chatapp_bridge_callbacks_retired_secret_total": counting(1)}, {"ChatappBridgeRetiredSecret"}
    ),
    "ChatappBridgeRefusedByNetwork": Case(
        {"chatapp_bridge_callbacks_refused_by_network_total": counting(1)}, {"ChatappBridgeRefusedByNetwork"}
    ),
    "ChatappBridgeCallbacksRejected": Case(
        {'chatapp_bridge_callbacks_total{answer="413"}': counting(1)}, {"ChatappBridgeCallbacksRejected"}
    ),
    "ChatappBridgeBodiesTooSlow": Case(
        {'chatapp_bridge_callbacks_total{answer="408"}': counting(1)}, {"ChatappBridgeBodiesTooSlow"}
    ),
    "ChatappBridgeRateLimited": Case(
        {"chatapp_bridge_callbacks_rate_limited_total": counting(1)}, {"ChatappBridgeRateLimited"}
    ),
    "ChatappBridgeAckLatency": Case(
        {
            'chatapp_bridge_ack_latency_seconds_bucket{le="0.01"}': counting(5000, 6000),
            'chatapp_bridge_ack_latency_seconds_bucket{le="1.5"}': counting(5900, 6000),
        },
        {"ChatappBridgeAckLatency"},
        not_yet=BEGINS + 4,
    ),
    "ChatappBridgeNoCallbacks": Case(
        {
            "chatapp_bridge_last_callback_timestamp_seconds": " ".join(
                (
                    growing(60, 0, BEGINS),
                    steady(60 * BEGINS, ENDS - BEGINS),
                    growing(60, 60 * ENDS, MINUTES - ENDS),
                )
            )
        },
        {"ChatappBridgeNoCallbacks"},
        at=97,
        not_yet=BEGINS + 64,
    ),
    "ChatappBridgeQuarantine": Case(
        {
            'chatapp_bridge_reports_quarantined_total{reason="no_status"}': counting(120),
            'chatapp_bridge_reports_published_total{topic="chatapp.status.v1"}': counting(5880, 6000),
            'chatapp_bridge_reports_published_total{topic="chatapp.status.quarantine.v1"}': counting(120),
        },
        {"ChatappBridgeQuarantine"},
        not_yet=BEGINS + 4,
    ),
    "ChatappBridgeTooManyItems": Case(
        {'chatapp_bridge_reports_quarantined_total{reason="too_many_items"}': counting(1)},
        {"ChatappBridgeTooManyItems"},
    ),
    "ChatappBridgeRestarting": Case(
        {
            "chatapp_bridge_start_timestamp_seconds": " ".join(
                (steady(1, BEGINS), growing(60, 1800, ENDS - BEGINS), steady(6000, MINUTES - ENDS))
            )
        },
        {"ChatappBridgeRestarting"},
        not_yet=BEGINS + 1,
    ),
    "nothing but good days": Case({}, set()),
}
