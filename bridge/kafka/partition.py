"""The Java client's partitioning: murmur2 of the key, so that producers in every language agree where a key lives."""

import struct
from functools import lru_cache

from bridge import compiled

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


@lru_cache(maxsize=64)
def _words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")


def murmur2_python(data: bytes) -> int:
    """MurmurHash2 of ``data``, 32 bits, unsigned; the value of Java's ``Utils.murmur2`` modulo 2^32."""
    length = len(data)
    count = length >> 2
    value = _SEED ^ length
    for word in _words(count).unpack_from(data):
        mixed = (word * _M) & _MASK
        value = ((value * _M) & _MASK) ^ (((mixed ^ (mixed >> 24)) * _M) & _MASK)
    if tail := data[count << 2 :]:
        value = ((value ^ int.from_bytes(tail, "little")) * _M) & _MASK
    value = ((value ^ (value >> 13)) * _M) & _MASK
    return value ^ (value >> 15)


murmur2 = compiled.module.murmur2 if compiled.COMPILED else murmur2_python
"""The faster of the two."""


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of ``key`` in a topic of ``partitions``, as ``BuiltInPartitioner.partitionForKey`` gives it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
