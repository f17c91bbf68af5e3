"""What ``chatapp-bridge schema`` does: the event's schema beside the registry's, and beside every released one.

Each prints what it found and did, and gives the exit code. All raise:
    ConfigurationError: It needs a registry and none is configured, or its settings can't be used.
    RegistryError: The registry refuses or can't be had; what was not printed is not known to be done.
"""

import json
from collections.abc import Mapping

from bridge import config
from bridge.errors import RegistryError
from bridge.operate import console
from bridge.registry.client import RegistryClient, subject_of
from bridge.registry.compatibility import LEVEL, UNCHECKED, incompatibilities
from bridge.registry.difference import differences
from bridge.schemas import released_texts, written_schema


async def check(settings: config.Settings, *, offline: bool) -> int:
    """Whether our schema can stand beside every version released, and every one at the registry."""
    ours = written_schema().text
    releases = {f"release {number}": text for number, text in released_texts().items()}
    good = _print_check("avro/releases", ours, releases)
    if not any(json.loads(ours) == json.loads(text) for text in releases.values()):
        console.show(
            f"this schema is none of the releases: add it as avro/releases/{max(released_texts(), default=0) + 1}.avsc"
        )
        good = False
    if offline or not settings.registry.urls:
        console.show("the registry was not asked" + ("" if offline else ": registry.url is empty"))
        return int(not good)
    async with RegistryClient(settings.registry) as client:
        subject = _announce(settings)
        good = _print_check(subject, ours, await _versions(client, subject)) and good
        refused = await client.compatible(subject, ours)
        for message in refused:
            console.show(f"  the registry itself refuses it: {message}")
        await _print_level(client, subject)
        found = await client.find(subject, ours)
        console.show(f"registered as version {found.version}, id {found.id}" if found else "not registered yet")
    return int(not good or bool(refused))


async def register(settings: config.Settings, *, dry_run: bool) -> int:
    """Register our schema where it isn't, and see to the subject's compatibility; as often as one likes."""
    ours = written_schema().text
    async with RegistryClient(settings.registry) as client:
        subject = _announce(settings)
        found = await client.find(subject, ours)
        if found is None:
            known = await _versions(client, subject)
            refused = [] if not known else await client.compatible(subject, ours)
            if not _print_check(subject, ours, known) or refused:
                console.show(*(f"  the registry itself refuses it: {message}" for message in refused))
                console.show("nothing was registered")
                return 1
        if dry_run:
            level = await client.compatibility(subject)
            console.show(
                f"would set the compatibility {LEVEL}" if level in UNCHECKED else f"would leave the level {level}"
            )
            console.show(f"is version {found.version}, id {found.id}" if found else "would register a new version")
            return 0
        # First, where the registry lets it: so nobody else registers what isn't compatible in between.
        await _set_level(client, subject)
        if found is None:
            schema_id = await client.register(subject, ours)
            found = await client.find(subject, ours)
            if found is None:
                raise RegistryError(f"subject {subject}: registered as id {schema_id}, but it isn't there; try again")
            await _set_level(client, subject)
            console.show(f"registered: version {found.version}, id {found.id}")
        else:
            console.show(f"registered already: version {found.version}, id {found.id}")
        await _print_level(client, subject)
    return 0


async def diff(settings: config.Settings) -> int:
    """What differs from the registry's latest version, field by field."""
    async with RegistryClient(settings.registry) as client:
        subject = _announce(settings)
        versions = await client.versions(subject)
        theirs = await client.schema_by_version(subject, versions[-1]) if versions else None
    if theirs is None:
        console.show("nothing is registered there")
        return 1
    found = differences(written_schema().text, theirs)
    console.show(*found)
    console.show(f"version {versions[-1]}, the latest, {'differs' if found else 'is the same'}")
    return int(bool(found))


def _announce(settings: config.Settings) -> str:
    subject = subject_of(settings.topics.status)
    console.show(f"registry {settings.registry.url}, subject {subject}")
    return subject


async def _versions(client: RegistryClient, subject: str) -> dict[str, str]:
    """Every version under the subject, by its name for people, oldest first."""
    texts = {version: await client.schema_by_version(subject, version) for version in await client.versions(subject)}
    return {f"version {version}": text for version, text in texts.items() if text is not None}


def _print_check(where: str, ours: str, others: Mapping[str, str]) -> bool:
    """Check against each, print what is wrong, or one line; whether all is well."""
    good = True
    for name, text in others.items():
        try:
            found = incompatibilities(ours, text)
        except RegistryError as error:  # What lies there is no Avro.
            found = [str(error)]
        if found:
            good = False
            console.show(f"{where}: not compatible with {name}")
            console.show(*(f"  {line}" for line in found))
    if good:
        console.show(f"{where}: compatible with {', '.join(others)}" if others else f"{where}: nothing there yet")
    return good


async def _set_level(client: RegistryClient, subject: str) -> None:
    """Set the level where there is none; one that somebody chose is left."""
    if await client.compatibility(subject) not in UNCHECKED:
        return
    try:
        if await client.set_compatibility(LEVEL, subject):
            console.show(f"compatibility: set to {LEVEL}")
    except RegistryError as error:
        if error.retriable:
            raise
        raise RegistryError(f"{error}; or let who may do it set the compatibility {LEVEL} there") from error


async def _print_level(client: RegistryClient, subject: str) -> None:
    level = await client.compatibility(subject)
    if level in UNCHECKED:
        console.show(f"compatibility: none of its own; `schema register` sets {LEVEL}")
    elif level != LEVEL:
        console.show(f"compatibility: {level}, weaker than {LEVEL}; it was left, raise it at the registry")
    else:
        console.show(f"compatibility: {LEVEL}")
