"""mq-bridge (Rust, configured): HTTP in, Kafka out, nothing between: ``mq_bridge_peer.py --port N --bootstrap HOST:PORT``.

A callback's whole body becomes one record, as it came; its key is an id that mq-bridge makes.
"""

import argparse
import logging
import signal
import threading

from mq_bridge import Route, init_logging  # type: ignore[import-not-found]

SUCCESS = '{"code":0,"msg":"Success"}'


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--topic", default="chatapp.status.v1")
    parser.add_argument("--linger-ms", default="1")
    parser.add_argument("--compression", default="lz4")
    parser.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    init_logging("error")
    producer = {
        "acks": "all",
        "enable.idempotence": "true",
        "linger.ms": options.linger_ms,
        "compression.type": options.compression,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": "2500",
    }
    kafka = {
        "url": options.bootstrap,
        "topic": options.topic,
        "create_topic": False,
        "producer_options": [list(pair) for pair in producer.items()],
    }
    # Without it the route ends at the first failure, and its path is 404 from then on.
    retry = {"retry": {"max_attempts": 1_000_000, "max_interval_ms": 200}}
    route = Route.from_config(
        {
            "input": {
                "http": {
                    "url": f"127.0.0.1:{options.port}",
                    "path": "/callbacks/chatapp/status",
                    "method": "POST",
                    "request_timeout_ms": 2500,
                    "internal_buffer_size": 4096,
                    "concurrency_limit": 4096,
                }
            },
            "output": {
                "fanout": [{"kafka": kafka, "middlewares": [retry]}, {"static": {"body": SUCCESS, "raw": True}}]
            },
            "concurrency": options.concurrency,
            "reconnect_interval_ms": 200,
        }
    )
    stop_requested = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop_requested.set())
    route.start()
    stop_requested.wait()
    route.stop()


if __name__ == "__main__":
    main()
