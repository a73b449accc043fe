"""Compares what the control plane says of networks and VMs with the traffic between guests.

Two violations, each for longer than the limit: everything that concerns a pair of guests is `ready` while their traffic
does not pass; and a network on a node, or a VM, is not `ready` while all traffic that it concerns passes.

Nothing is known of a node that is cut off from the control plane: instead of what its traffic does, it must become
unreachable within `UNREACHABLE_S`."""
import dataclasses

LIMIT_S = 2.0
UNREACHABLE_S = 15.0  # without a heartbeat
# Time of a break or repair, and of a status, is only known up to the period of probes and queries.
RESOLUTION_S = 0.5


@dataclasses.dataclass
class Pair:
    """One kind of traffic from a guest to a target. It fails since the first probe that did not pass was sent."""
    source: str
    target: str
    kind: str
    concerns: frozenset  # of statuses
    failing_since: float | None = None
    passing_since: float | None = None

    def record(self, sent, done, passed):
        if passed:
            self.failing_since, self.passing_since = None, self.passing_since or done
        else:
            self.failing_since, self.passing_since = self.failing_since or sent, None

    def __str__(self):
        return f"{self.kind} {self.source} -> {self.target}"


@dataclasses.dataclass
class Status:
    """Of a network on a node, or of a VM."""
    name: str
    node: str = ""
    is_ready: bool = False
    since: float = 0.0
    reason: str = ""
    warnings: tuple = ()

    def record(self, now, is_ready, reason, warnings):
        if is_ready != self.is_ready:
            self.since = now
        self.is_ready, self.reason, self.warnings = is_ready, reason, warnings


class Judge:
    def __init__(self, slack):
        self.limit = LIMIT_S + RESOLUTION_S + slack
        self.pairs, self.statuses = {}, {}
        self.begin_episode()

    def begin_episode(self, cut_off=None):
        """`cut_off`: the node that the break cuts off from the control plane."""
        self.cut_off, self.late = cut_off, []
        self.false_ready, self.false_alarm, self.reasons, self.failed = {}, {}, {}, set()

    def add_pair(self, source, target, kind, concerns):
        """`concerns`: the node of each status that the pair concerns."""
        self.pairs[source, target, kind] = Pair(source, target, kind, frozenset(concerns))
        for name in concerns:
            self.statuses.setdefault(name, Status(name, concerns[name]))

    def record_traffic(self, source, sent, done, target, kind, passed):
        pair = self.pairs[source, target, kind]
        pair.record(sent, done, passed)
        if not passed:
            self.failed.add(str(pair))

    def record_status(self, name, now, is_ready, reason, warnings):
        if status := self.statuses.get(name):
            status.record(now, is_ready, reason, warnings)
            if not is_ready:
                self.reasons.setdefault(name, reason)
            elif warnings:
                self.reasons.setdefault(name, "ready, with the warning: " + "; ".join(warnings))

    def look(self, now):
        """Notes how long each contradiction has lasted."""
        for pair in self.pairs.values():
            statuses = [self.statuses[name] for name in pair.concerns]
            # Other nodes notice by themselves, within the limit, that a node is cut off from them, too.
            is_known = any(status.node != self.cut_off for status in statuses)
            if is_known and pair.failing_since is not None and all(status.is_ready for status in statuses):
                lasted = now - max(pair.failing_since, *(status.since for status in statuses))
                note(self.false_ready, str(pair), lasted)
        for status in self.statuses.values():
            pairs = [pair for pair in self.pairs.values() if status.name in pair.concerns]
            if status.node == self.cut_off:
                continue
            if not status.is_ready and all(pair.passing_since is not None for pair in pairs):
                lasted = now - max(status.since, *(pair.passing_since for pair in pairs))
                note(self.false_alarm, status.name, lasted)

    def end_of_break(self, lasted):
        """Notes what a node that was cut off for this long still reports, although it must be unreachable."""
        if lasted >= self.unreachable_after_s:
            own = [status for status in self.statuses.values() if status.node == self.cut_off]
            self.late = [f"{status.name} is `ready` {lasted:.1f} s after its node was cut off"
                         for status in own if status.is_ready]

    @property
    def unreachable_after_s(self):
        return UNREACHABLE_S + self.limit

    def is_calm(self):
        return (all(status.is_ready for status in self.statuses.values())
                and all(pair.passing_since is not None for pair in self.pairs.values()))

    def unrest(self):
        """What is not as it should be without a break."""
        waiting = [f"{status.name}: {status.reason}" for status in self.statuses.values() if not status.is_ready]
        return waiting + [f"{pair} does not pass" for pair in self.pairs.values() if pair.passing_since is None]

    def violations(self, is_warning_due):
        """What lasted longest of each kind of contradiction, if it lasted too long."""
        found = self.late[:1]
        is_warned = is_warning_due and self.reasons
        if (ready := self.too_long(self.false_ready)) and not is_warned:
            (pair, lasted), more = ready[0], len(ready) - 1
            found.append(f"`ready` for {lasted:.1f} s while {pair} does not pass, and {more} more")
        if alarms := self.too_long(self.false_alarm):
            (name, lasted), more = alarms[0], len(alarms) - 1
            why = self.reasons.get(name)
            found.append(f"{name} not ready for {lasted:.1f} s while its traffic passes ({why}), and {more} more")
        return found

    def too_long(self, longest):
        found = [(name, lasted) for name, lasted in longest.items() if lasted > self.limit]
        return sorted(found, key=lambda item: -item[1])


def note(longest, name, lasted):
    longest[name] = max(longest.get(name, 0.0), lasted)
