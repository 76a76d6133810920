# SPDX-License-Identifier: Apache-2.0
"""Rotation: which replicas of a specification stay, and why each of the others may go."""

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from slackwater.model.hold import Consistency
from slackwater.model.quantities import format_duration
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.model.retention import Keep

#: By rule: its period in words, and the period in which a moment of the local calendar lies. When clocks are put back,
#: an hour comes twice: the offset keeps the two apart.
_PERIODS: Mapping[str, tuple[str, Callable[[datetime], Hashable]]] = {
    "hourly": ("hour", lambda at: (at.date(), at.hour, at.utcoffset())),
    "daily": ("day", lambda at: at.date()),
    "weekly": ("week", lambda at: at.isocalendar()[:2]),
    "monthly": ("month", lambda at: (at.year, at.month)),
    "yearly": ("year", lambda at: at.year),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What rotation says about one replica."""

    replica: str
    keep: bool
    reason: str


def rotate(
    replicas: Iterable[Replica],
    keep: Keep,
    *,
    min_redundancy: int = 1,
    verifies: bool = False,
    zone: tzinfo | None = None,
    now: datetime | None = None,
    ran: Sequence[str] = (),
    undo_keep_s: float = math.inf,
    young: Collection[str] = (),
) -> tuple[Decision, ...]:
    """Decide for every replica of one specification, newest first; nothing is deleted here.

    Good are whole backups that are not pinned, and, where the specification `verifies`, were proven to recover. They
    stay where a rule of `keep` wants them, and the newest `min_redundancy` of them in any case. So does the newest that
    is application-consistent, when all the newer ones are only crash-consistent. What is not proven yet never costs a
    good one its place, and goes only when enough good ones are there. Undo replicas go by their age alone. What failed
    is for somebody to look at, and what is missing may be on a volume that is just not mounted: neither is touched. The
    last good backup stays, therefore, whatever comes in.

    Args:
        replicas: all of one specification, in any order.
        keep: the rules.
        min_redundancy: never fewer good ones than that, as far as there are.
        verifies: whether the specification has its replicas verified, so that an unverified one does not count.
        zone: whose calendar; None for the host's local time.
        now: what was made after this moment was made while the clock was ahead: it stays, and does not count. None
            where all clocks are right.
        ran: the ids of those whose sessions ran here, in this order. Where times say another one, a clock was wrong:
            the fewest that contradict, and of as many the older ones, stay and do not count.
        undo_keep_s: how long what a recovery set aside is kept.
        young: undo replicas that are younger than that, whatever the clock says.

    Raises:
        ValueError: the replicas are of several specifications, of which each has its own last.
    """
    ordered = sorted(
        replicas, key=lambda each: (each.document.created, len(each.id), each.id), reverse=True
    )  # -10 comes after -9
    if len({each.document.specification for each in ordered}) > 1:
        raise ValueError("rotation decides for one specification at a time")
    ahead = {each.id for each in ordered if now is not None and each.document.created > now}
    whole = [each for each in ordered if _whole(each) and each.id not in ahead]
    contrary = _contrary(whole, ran)
    whole = [each for each in whole if each.id not in contrary]
    proven = [each for each in whole if each.verified or not verifies]
    good = [each for each in proven if not each.pinned]
    wanted = _wanted(good, keep, zone)
    _reserve(good, wanted, min_redundancy)
    _want_consistent(proven, wanted)
    if verifies:
        beside = _wanted([each for each in whole if not each.pinned], keep, zone)
        _want_consistent(whole, beside)
        if len(good) < min_redundancy:
            beside = {each.id: f"fewer than {min_redundancy} are verified" for each in whole}
        for replica, why in beside.items():
            wanted.setdefault(replica, f"not verified, so it does not count; {why}")
    wanted |= dict.fromkeys(ahead, "made while the clock was ahead; it does not count")
    wanted |= dict.fromkeys(contrary, "its time contradicts the order in which sessions ran; it does not count")
    old = {each.id for each in ordered if now is not None and each.id not in young and expired(each, undo_keep_s, now)}
    return tuple(
        _decide_undo(each, undo_keep_s, go=each.id in old)
        if each.document.kind is ReplicaKind.UNDO
        else _decide(each, wanted, keep)
        for each in ordered
    )


def expired(replica: Replica, keep_s: float, now: datetime) -> bool:
    """Whether an undo replica has been kept for long enough; what is pinned or not as it was made is left alone.

    So is what was kept of a recovery that was taken back: what its application acknowledged is nowhere else.
    """
    kept_s = (now - replica.document.created).total_seconds()
    return (
        replica.document.kind is ReplicaKind.UNDO
        and replica.state is ReplicaState.GOOD
        and bool(replica.document.replica)
        and not replica.pinned
        and kept_s > keep_s
    )


def _contrary(replicas: Iterable[Replica], ran: Sequence[str]) -> set[str]:
    """Who is left when as many as can be are in order, by what ran and by what the clock said; of ties the newer."""
    times = {each.id: each.document.created for each in replicas}
    newest_first = [each for each in reversed(ran) if each in times]
    chains: list[tuple[str, ...]] = []
    for each in newest_first:
        before = [chain for chain in chains if times[chain[-1]] >= times[each]]
        chains.append((*_longest(before), each))
    return set(newest_first) - set(_longest(chains))


def _longest(chains: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The first of the longest; an empty one of none."""
    return max(chains, key=len) if chains else ()


def _whole(replica: Replica) -> bool:
    return replica.document.kind is ReplicaKind.BACKUP and replica.state is ReplicaState.GOOD


def _wanted(good: Sequence[Replica], keep: Keep, zone: tzinfo | None) -> dict[str, str]:
    """Which of these, the newest first, the rules keep, and why: every rule for itself."""
    whys: dict[str, list[str]] = {
        each.id: [f"good replica {rank} of the newest {keep.last}"]
        for rank, each in enumerate(good[: keep.last], start=1)
    }
    local = [(each.document.created.astimezone(zone), each.id) for each in good]
    for name, (word, period_of) in _PERIODS.items():
        count = getattr(keep, name)
        last: dict[Hashable, str] = {}
        for at, replica in local if count else ():
            last.setdefault(period_of(at), replica)
        for rank, replica in enumerate(list(last.values())[:count], start=1):
            whys.setdefault(replica, []).append(f"last of its {word} ({rank} of {count})")
    return {replica: ", ".join(why) for replica, why in whys.items()}


def _reserve(good: Sequence[Replica], wanted: dict[str, str], min_redundancy: int) -> None:
    """Want the newest of the others, too, until there are enough."""
    missing = max(0, min_redundancy - len(wanted))
    others = [each.id for each in good if each.id not in wanted]
    wanted.update(dict.fromkeys(others[:missing], f"so that {min_redundancy} good ones stay (min_redundancy)"))


def _want_consistent(replicas: Sequence[Replica], wanted: dict[str, str]) -> None:
    """Want the newest that is more than the image of a power cut."""
    consistent = (each.id for each in replicas if each.document.consistency is Consistency.APPLICATION)
    if newest := next(consistent, ""):
        wanted.setdefault(newest, "the newest that is application-consistent")


def _decide_undo(replica: Replica, keep_s: float, *, go: bool) -> Decision:
    if replica.state is ReplicaState.DELETING:
        return Decision(replica.id, False, "its deletion was decided before and is not finished")
    if go:
        return Decision(replica.id, False, f"set aside by a recovery more than {format_duration(keep_s)} ago")
    if not replica.document.replica:
        return Decision(replica.id, True, "kept of a recovery that was taken back; it goes only when you delete it")
    if replica.pinned or replica.state is not ReplicaState.GOOD or math.isinf(keep_s):
        return Decision(replica.id, True, "set aside by a recovery; rotation leaves it alone")
    return Decision(replica.id, True, f"set aside by a recovery less than {format_duration(keep_s)} ago")


def _decide(replica: Replica, wanted: Mapping[str, str], keep: Keep) -> Decision:
    if replica.state is ReplicaState.DELETING:
        return Decision(replica.id, False, "its deletion was decided before and is not finished")
    if not _whole(replica):
        return Decision(replica.id, True, f"{replica.state.value}; it does not count, and rotation leaves it alone")
    if replica.pinned:
        return Decision(replica.id, True, "pinned; it does not count")
    if why := wanted.get(replica.id):
        return Decision(replica.id, True, why)
    simple = set(keep.rules) == {"last"}
    return Decision(replica.id, False, f"older than the newest {keep}" if simple else f"not among {keep}")
