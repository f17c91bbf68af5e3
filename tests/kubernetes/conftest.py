"""What the tests on a real Kubernetes share."""

from collections.abc import Iterator

import pytest
from support.kubernetes import Namespace, new_namespace


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """One of the test's own, with Kafka."""
    with new_namespace() as made:
        yield made
