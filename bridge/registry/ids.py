"""The registry's ids of the schemas that values were written with: looked up in the background, kept in a file beside the spool.

Nobody waits for the registry: ``prefix`` answers from memory, and what it can't answer is looked up until the registry has it.
What is looked up is what records ask for, so a schema of an older release comes up when the spool still holds its records.

The file has, by the registry's address, subject and fingerprint (in hex), the ids that the registry gave. They are used until the
registry answers again, which it is asked to after each start; its word then counts, also that it has no such schema any more.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final, Self

import msgspec
import structlog

from bridge import config, durable
from bridge.errors import BridgeError, RegistryError
from bridge.registry.client import RegistryClient, subject_of
from bridge.schemas import EventSchema, known_schemas, written_schema

log = structlog.get_logger(__name__)

FILE: Final = "schema-ids.json"
"""The file's name, in the spool's directory."""

_MAGIC: Final = b"\x00"
_LAST_ID: Final = (1 << 31) - 1
_BACKOFF_SECONDS: Final = (0.25, 5.0)
_Cache = dict[str, dict[str, dict[str, Annotated[int, msgspec.Meta(ge=0, le=_LAST_ID)]]]]
_Key = tuple[str, bytes]


class RegisteredIds:
    """Ids by topic and fingerprint.

    Args:
        settings: ``[registry]``; without an address nothing is looked up.
        schemas: all that may be asked for, the newest first: of those that share a fingerprint it is the first one that the
            registry has.
        file: where ids are kept, None for nowhere.

    Raises:
        ConfigurationError: a certificate or a mounted secret of the registry's can't be used.
    """

    def __init__(self, settings: config.Registry, schemas: Iterable[EventSchema], file: Path | None) -> None:
        if settings.urls:
            RegistryClient(settings)  # what can't be used stops the start
        self._settings = settings
        self._texts: defaultdict[bytes, list[str]] = defaultdict(list)
        for schema in schemas:
            self._texts[schema.fingerprint].append(schema.text)
        self._file = file
        self._cache = _read(file) if file is not None else {}
        self._prefixes = dict(self._cached())
        # asked for, not answered by the registry in this life
        self._open: dict[_Key, None] = {}
        self._asked: set[_Key] = set()
        self._required: set[_Key] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said = ""

    @classmethod
    def of(cls, settings: config.Settings) -> Self:
        """As a bridge with these settings needs them: what it encodes now is required; kept beside its spool."""
        file = Path(settings.spool.directory) / FILE if settings.spool.enabled else None
        ids = cls(settings.registry, known_schemas(), file)
        if settings.events.format == "avro" and settings.registry.urls:
            ids.require(settings.topics.status, written_schema().fingerprint)
        return ids

    def start(self) -> None:
        """Begin to look up; the directory of the file is there and is this process's own."""
        if self._settings.urls:
            self._task = asyncio.create_task(self._run(), name="schema-ids")
            self._task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            # Without it what waits for an id would wait for ever.
            log.error("schema_ids_failed", exc_info=task.exception())
            self._wake.set()
            asyncio.get_running_loop().call_later(_BACKOFF_SECONDS[1], self.start)

    async def stop(self) -> None:
        """End looking up."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def require(self, topic: str, schema: bytes) -> None:
        """Have an id looked up now, and be ready only with it."""
        self._required.add((topic, schema))
        self._ask((topic, schema))

    @property
    def ready(self) -> bool:
        """Whether every id that is required is known."""
        return self._required <= self._prefixes.keys()

    @property
    def missing(self) -> int:
        """How many ids were asked for that are not known."""
        return len(self._asked - self._prefixes.keys())

    @property
    def known(self) -> int:
        """How many ids were asked for and are known."""
        return len(self._asked) - self.missing

    def prefix(self, topic: str, schema: bytes) -> bytes | None:
        """Confluent's frame: what goes before bare Avro. None while the id is not known, and looked up from now on.

        Args:
            topic: where the record goes; its subject is ``<topic>-value``.
            schema: the fingerprint of the schema that the value was written with.
        """
        key = (topic, schema)
        if key not in self._asked:
            self._ask(key)
        return self._prefixes.get(key)

    def _ask(self, key: _Key) -> None:
        self._asked.add(key)
        if not self._settings.urls:
            _say_not_known(key, "registry.url is empty", "set it: these records were written for a registry")
        elif key[1] not in self._texts and key not in self._prefixes:
            _say_not_known(key, "no release of this bridge wrote it", "run the bridge that did, or one at least as new")
        elif key[1] in self._texts:
            self._open[key] = None
            self._wake.set()

    # --- looking up ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = _BACKOFF_SECONDS[0]
        while True:
            await self._wake.wait()
            self._wake.clear()
            if await self._look_up_all():
                backoff = _BACKOFF_SECONDS[0]
            else:
                self._wake.set()
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    async def _look_up_all(self) -> bool:
        """Ask for everything that is open; whether nothing is any more."""
        failures = []
        try:
            # A new one, as certificates may have been renewed; in a thread, as reading them takes its time.
            async with await asyncio.to_thread(RegistryClient, self._settings) as client:
                for key in list(self._open):
                    try:
                        await self._look_up(client, key)
                    except RegistryError as error:
                        if error.retriable:
                            raise  # it is away, for the others too
                        failures.append(str(error))
        except BridgeError as error:
            failures.append(str(error))
        failure = "; ".join(failures)
        if failure and failure != self._said:
            log.error("schema_id_not_found", error=failure, missing=self.missing)
        self._said = failure
        return not self._open

    async def _look_up(self, client: RegistryClient, key: _Key) -> None:
        subject = subject_of(key[0])
        for text in self._texts[key[1]]:
            number = await client.lookup(subject, text)
            if number is not None:
                break
        else:
            self._forget(key)
            raise RegistryError(
                f"registry {self._settings.url}, subject {subject}: the schema with the fingerprint {key[1].hex()} is not "
                "registered; register it (chatapp-bridge schema register), until then its records wait"
            )
        if not 0 <= number <= _LAST_ID:
            raise RegistryError(f"registry {self._settings.url}, subject {subject}: {number} is no id of a schema")
        await self._keep(key, number)  # before it is used: what was published with it can go on after a restart
        prefix = _prefix(number)
        del self._open[key]
        if prefix != self._prefixes.get(key):
            self._prefixes[key] = prefix
            log.info("schema_id_found", subject=subject, schema=key[1].hex(), id=number)

    def _forget(self, key: _Key) -> None:
        """The registry answers, and has no such schema: no consumer could read what names the id it had."""
        if self._prefixes.pop(key, None) is not None:
            log.error("schema_id_lost", subject=subject_of(key[0]), schema=key[1].hex())

    # --- the file -----------------------------------------------------------------------------------------------------

    def _cached(self) -> Iterable[tuple[_Key, bytes]]:
        for url in reversed(self._settings.urls):  # the first one's word counts
            for subject, ids in self._cache.get(url, {}).items():
                for schema, number in ids.items():
                    yield (subject.removesuffix("-value"), bytes.fromhex(schema)), _prefix(number)

    async def _keep(self, key: _Key, number: int) -> None:
        """Every address of the registry is the same registry."""
        subjects = [self._cache.setdefault(url, {}).setdefault(subject_of(key[0]), {}) for url in self._settings.urls]
        if self._file is None or all(ids.get(key[1].hex()) == number for ids in subjects):
            return
        for ids in subjects:
            ids[key[1].hex()] = number
        data = msgspec.json.format(msgspec.json.encode(self._cache)) + b"\n"
        try:
            await asyncio.to_thread(durable.replace, self._file, data)
        except OSError as error:
            log.warning("schema_ids_not_kept", file=str(self._file), reason=error.strerror)


def _prefix(number: int) -> bytes:
    return _MAGIC + number.to_bytes(4, "big")


def _say_not_known(key: _Key, reason: str, remedy: str) -> None:
    log.error("schema_id_unknown", subject=subject_of(key[0]), schema=key[1].hex(), reason=reason, remedy=remedy)


def _read(file: Path) -> _Cache:
    """What the file has; nothing where it can't be read, since the registry has it all."""
    try:
        cache = msgspec.json.decode(file.read_bytes(), type=_Cache)
        _fingerprints(cache)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # msgspec's are ValueErrors
        log.warning("schema_ids_file_unusable", file=str(file), reason=str(error))
        return {}
    return cache


def _fingerprints(cache: _Cache) -> Sequence[bytes]:
    """Raises ValueError where one is none."""
    return [bytes.fromhex(schema) for subjects in cache.values() for ids in subjects.values() for schema in ids]
