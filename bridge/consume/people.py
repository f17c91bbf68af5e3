"""How many messages share a message_id, and to whom each event belongs.

The provider may use one message_id for several people, and each of them gets a message. An event names a person by recipient, by
user id, by both or by neither. The same person may come by recipient first and by user id alone later.
"""

from collections.abc import Collection

Named = tuple[str | None, str | None]
"""The recipient and the user id of one event; None or empty where it has none."""


def count_people(named: Collection[Named]) -> int:
    """How many messages some events of one message_id are: a number that never shrinks when events are added.

    It is the number of different recipients, or of different user ids where those are more, and at least one.

    Args:
        named: what the events name; without events there is no message.
    """
    recipients, user_ids = _different(named)
    return max(len(recipients), len(user_ids), 1 if named else 0)


def people(named: Collection[Named]) -> dict[Named, str]:
    """To whom each event of one message_id belongs, whatever the order in which the events came.

    People go by recipient, or by user id where a message_id has more of those. An event that has only the other name belongs
    to the person that some event names together with it (the first in the order of text, where there are several). Where no
    event does, the names that are left are paired with the people that are left, in the order of their text: a guess, which
    an event with both names corrects. An event that names nobody belongs to the first of the people that are left.

    Args:
        named: what all events of the message_id name.

    Returns:
        The recipient or user id that the person goes by, empty where no event names anybody. `count_people` says how many
        different ones there are.
    """
    recipients, user_ids = _different(named)
    by_user_id = len(user_ids) > len(recipients)
    sides = {pair: (pair[::-1] if by_user_id else pair) for pair in named}
    links = sorted((who, other) for who, other in sides.values() if who and other)
    linked = {who for who, _ in links}
    everyone = sorted({who for who, _ in sides.values() if who}, key=lambda who: (who in linked, who))
    # The first link of a name is written last, and so it stays.
    person_of = {other: who for who, other in reversed(links)}
    left = sorted({other for _, other in sides.values() if other} - person_of.keys())
    person_of |= dict(zip(left, everyone, strict=False))
    first = everyone[0] if everyone else ""
    return {pair: who or (person_of[other] if other else first) for pair, (who, other) in sides.items()}


def _different(named: Collection[Named]) -> tuple[set[str], set[str]]:
    """The different recipients, and the different user ids."""
    return {recipient for recipient, _ in named if recipient}, {user_id for _, user_id in named if user_id}
