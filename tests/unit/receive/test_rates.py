"""How often something may happen: a burst, then a steady rate; memory is bounded."""

from ipaddress import ip_address

import pytest

from bridge.receive.rates import MOST_ADDRESSES, AddressBuckets, Bucket


class Clock:
    """A clock of the test's."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.mark.parametrize(("per_second", "burst"), [(10.0, 50), (1.0, 5), (0.1, 1)])
def test_five_seconds_worth_may_come_at_once_and_then_the_rate(per_second: float, burst: int) -> None:
    """Beyond it the wait is said in whole seconds, and is enough."""
    clock = Clock()
    bucket = Bucket(per_second, clock)
    assert [bucket.take() for _ in range(burst)] == [0] * burst
    wait = bucket.take()
    assert wait >= 1
    clock.now += wait
    assert bucket.take() == 0
    clock.now += 3600
    assert [bucket.take() for _ in range(burst)] == [0] * burst, "no more than the burst is saved up"
    assert bucket.take() > 0


def test_addresses_have_a_rate_each_and_a_network_of_ipv6_shares_one() -> None:
    """A client of IPv6 has a whole /64 to choose from."""
    buckets = AddressBuckets(0.1, Clock())
    first = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:0:1::1"]
    assert [buckets.take(ip_address(text)) for text in first] == [0] * 4
    assert buckets.take(None) == 0
    again = ["192.0.2.1", "2001:db8::2", "2001:db8:0:1:ffff::"]
    assert all(buckets.take(ip_address(text)) > 0 for text in again)
    assert buckets.take(None) > 0


def test_no_more_than_so_many_addresses_are_remembered() -> None:
    """The one not seen for longest is forgotten first."""
    buckets = AddressBuckets(0.1, Clock())
    first, second = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    assert (buckets.take(first), buckets.take(second)) == (0, 0)
    for number in range(MOST_ADDRESSES - 2):
        buckets.take(ip_address(number))
    assert buckets.take(first) > 0  # and so it was seen last
    buckets.take(ip_address("198.51.100.1"))
    assert len(buckets) == MOST_ADDRESSES
    assert buckets.take(first) > 0
    assert buckets.take(second) == 0, "it was forgotten"
