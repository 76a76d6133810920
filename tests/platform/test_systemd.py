# SPDX-License-Identifier: Apache-2.0
"""A schedule under a real systemd, which is process 1 of a machine of its own: one boot, one night, many questions."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.demo.cluster import DebianCluster
from slackwater.demo.lab import Lab
from slackwater.model.hold import Consistency
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run
from slackwater.system.timers import timer_of
from tests.platform.machine import Machine, boot

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.uml, pytest.mark.timeout(600)]

MIB = 1 << 20
REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAME = "my-orders"

#: A server in a unit of its own, our units as they ship, and a specification with hooks that do as /run/mood says.
SETUP = """set -u
mkdir -p {data} {log} /etc/slackwater/{{specs.d,hooks}} /etc/systemd/system/slackwater-backup@.{{timer,service}}.d
mount -o subvol=data /dev/ubda {data} && mount -o subvol=log /dev/ubda {log}
mkdir -m 2775 /run/postgresql && chown postgres: /run/postgresql
for unit in backup@.service backup@.timer reconcile.service; do
    sed 's|/opt/slackwater/bin/slackwater|{command}|' {repository}/packaging/systemd/slackwater-$unit \\
        >/etc/systemd/system/slackwater-$unit
done
cat >/etc/systemd/system/slackwater-backup@.timer.d/test.conf <<END
[Timer]
RandomizedDelaySec=0
END
cat >/etc/systemd/system/slackwater-backup@.service.d/test.conf <<'END'
[Service]
ExecStopPost=/bin/sh -c 'echo "$SERVICE_RESULT $EXIT_STATUS" >>"/run/ended %i"'
END
cat >/etc/systemd/system/database.service <<END
[Service]
Type=forking
User=postgres
PIDFile={data}/postmaster.pid
ExecStart={binaries}/pg_ctl start -w -D {data} -l /tmp/log -o "-c config_file={config}/postgresql.conf"
ExecStop={binaries}/pg_ctl stop -w -m fast -D {data}
Restart=always
RestartSec=0
END
cat >/etc/slackwater/hooks/pre <<'END'
#!/bin/bash
echo "pre $SLACKWATER_SESSION $SLACKWATER_SPEC $SLACKWATER_PHASE" >>/run/hooks
case "$(cat /run/mood)" in slow) sleep 200 ;; bad) echo "not today"; exit 3 ;; esac
END
cat >/etc/slackwater/hooks/post <<'END'
#!/bin/bash
echo "post $SLACKWATER_SESSION $SLACKWATER_SPEC $SLACKWATER_PHASE" >>/run/hooks
END
chmod 755 /etc/slackwater/hooks/*
cat >/etc/slackwater/specs.d/{name}.toml <<END
name = "{name}"
[[component]]
writer = "postgresql"
instance = "{instance}"
[replica]
keep = "2d"
verify = "daily"
min_free = "1%"
[options]
hold = "process-freeze"
on_writer_failure = "crash"
[hooks]
pre_freeze = {{ command = ["/etc/slackwater/hooks/pre"], timeout = "5m" }}
post_thaw = ["/etc/slackwater/hooks/post"]
END
cat >/tmp/watch.py <<'END'
import select
with open("/sys/fs/cgroup/system.slice/database.service/cgroup.events") as f:
    poll = select.poll()
    poll.register(f, select.POLLPRI)
    while True:
        print(*f.read().split(), flush=True)
        poll.poll()
        f.seek(0)
END
systemctl daemon-reload
systemctl start database.service || {{ cat /tmp/log; exit 1; }}
main=$(systemctl show --property=MainPID --value database.service)
{python} /tmp/watch.py >{share}/frozen &
watch=$!
{python} -c 'import psycopg, alembic, sqlalchemy' # everything is slow here when it is read for the first time
sw() {{ name=$1; shift; {command} "$@" --json >{share}/$name || echo "$name: $?"; }}
sql() {{ su postgres -s /bin/sh -c '{binaries}/psql -h /run/postgresql -p {port} -AtX' <<<"$1"; }}
lines() {{ until [ "$(cat "$1" 2>/dev/null | wc -l)" -ge $2 ]; do sleep 0.5; done; }}
"""

NIGHT = """
sql 'create table placed as select generate_series(1, 1000)' >/dev/null
date --set="tomorrow 12:00" >/dev/null # the next 02:00 is tomorrow's, whatever the time is here
sw enabled schedule enable {name} --daily 02:00
: >/run/mood
date --set="tomorrow 01:59:58" >/dev/null
lines '/run/ended {instance_of_name}' 1

# One that is stopped in the middle, and one of a component, which waits for it.
echo slow >/run/mood
systemctl start --no-block '{service}'
lines /run/hooks 3
systemctl start --no-block '{other}'
until journalctl -q -o cat SPEC={ref} | grep -q Waiting; do sleep 1; done
systemctl stop '{service}' 2>/dev/null # it warns of its timer
lines '/run/ended {instance_of_other}' 1

echo bad >/run/mood
systemctl start '{service}' && echo "a crash-consistent one counts"

cat /proc/$main/cgroup >{share}/cgroup
journalctl -q -o cat _PID=1 | grep 'Started .*releases what session' >{share}/understudies
systemctl list-units --all --no-legend 'slackwater-guard-*' >>{share}/understudies
cp '/run/ended {instance_of_name}' {share}/ended
cp '/run/ended {instance_of_other}' {share}/ended.other
cp /run/hooks {share}/hooks
sw listed schedule list
cp /var/lib/slackwater/catalog.sqlite* {share}
sw disabled schedule disable {name}
find /etc/systemd/system -name 'slackwater-backup@my*' >{share}/left
systemctl list-timers --all --no-legend >>{share}/left
find /var/lib/systemd/timers -name '*orders*' >>{share}/left
journalctl -o json --output-fields=MESSAGE,PRIORITY,SESSION,SPEC,PHASE SYSLOG_IDENTIFIER=slackwater >{share}/journal
"""

#: The morning after: a recovery stops the server's unit and starts it, and so does its undo. A server that is ended
#: behind systemd's back is started again by it.
MORNING = """
disown $watch && kill $watch # its file goes with the unit's cgroup
sql 'insert into placed values (1001)' >/dev/null
unit() {{
    sql "select count(*), left(pg_walfile_name(pg_current_wal_lsn()), 8) from placed"
    systemctl show --property=ActiveState,SubState,MainPID database.service
    cat /proc/$(systemctl show --property=MainPID --value database.service)/cgroup
}}
unit >{share}/before
sw recovered recover {name} --yes --progress none
unit >{share}/after
sw undone recover {name} --undo --yes --progress none
unit >{share}/again
journalctl -q -o cat --output-fields=JOB_TYPE UNIT=database.service JOB_RESULT=done >{share}/jobs
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Not in /dev/shm: the machine has one of its own."""
    with Lab() as made:
        yield made


def test_a_night(lab: Lab) -> None:
    disk = lab.btrfs(1024 * MIB)
    cluster = lab.cluster(disk.subvolume("data"), disk.subvolume("log"))
    disk.unmount(disk.path)
    run("losetup", "--detach", disk.device)
    machine = boot(lab, script(cluster), disk.image, memory_mib=1024, systemd=True)
    status, said = machine.wait(560)
    assert (status, said) == (0, "a crash-consistent one counts\n")
    check(machine, cluster)
    check_morning(machine)


def script(cluster: DebianCluster) -> str:
    other = timer_of(cluster.ref).removesuffix("timer") + "service"
    service = timer_of(NAME).removesuffix("timer") + "service"
    instances = [unit.partition("@")[2].removesuffix(".service") for unit in (service, other)]
    return (SETUP + NIGHT + MORNING).format(
        data=cluster.data_dir, log=os.path.join(os.path.dirname(cluster.data_dir), "log"), share="${0%/*}",
        repository=REPOSITORY, binaries=cluster.binaries, config=cluster.config_dir, port=cluster.port, name=NAME,
        instance=cluster.name, ref=cluster.ref, command=f"{sys.executable} -m slackwater", python=sys.executable,
        service=service, other=other, instance_of_name=instances[0], instance_of_other=instances[1],
    )  # fmt: skip


def check(machine: Machine, cluster: DebianCluster) -> None:
    def read(name: str) -> list[str]:
        with open(f"{machine.share}/{name}") as f:
            return f.read().splitlines()

    def answer(name: str) -> dict[str, Any]:
        return dict(json.loads("\n".join(read(name))))

    enabled = answer("enabled")["schedule"]
    assert (enabled["unit"], enabled["calendar"]) == (timer_of(NAME), "*-*-* 02:00:00")
    assert enabled["next"][10:] == "T02:00:00.000Z"

    told = [json.loads(line) for line in read("journal")]
    # The timer fired, one was stopped, one is crash-consistent only: systemd knows which of them are failures.
    assert read("ended") == ["success 0", "exit-code 1", "success 11"], [each["MESSAGE"] for each in told]
    assert read("ended.other") == ["success 0"]
    (listed,) = answer("listed")["schedules"]
    assert (listed["specification"], listed["active"], listed["enabled"]) == (NAME, True, True)
    assert listed["last"] == enabled["next"] < listed["next"]
    assert (listed["result"], listed["exit_status"]) == ("success", 11)
    assert read("left") == [], "a schedule that was ended"

    with Catalog.open(f"{machine.share}/catalog.sqlite", create=False, clock=SYSTEM_CLOCK) as catalog:
        replicas = catalog.replicas.list()[::-1]
    assert [(each.document.specification, each.document.consistency) for each in replicas] == [
        (NAME, Consistency.APPLICATION), (cluster.ref, Consistency.APPLICATION), (NAME, Consistency.CRASH),
    ]  # fmt: skip

    # In the sandbox, too, a clone is recovered in namespaces of its own.
    assert [each.verification is not None and each.verification.passed for each in replicas] == [True, False, False]

    # The server's own cgroup was frozen and thawed for each hold, and is where it was. Who watches may miss how it
    # was in between, but not that it changed.
    assert read("cgroup") == ["0::/system.slice/database.service"]
    assert [each.document.window.frozen_ms > 0 for each in replicas] == [True, False, True]
    assert len(read("frozen")) > 2
    assert read("frozen")[-1] == "populated 1 frozen 0"

    # From inside the sandbox, too, the guard's understudy is a unit of its own, for each hold one, and gone with it.
    assert len(read("understudies")) == 2

    sessions = list(dict.fromkeys(each["SESSION"] for each in told if "SESSION" in each))
    first, verification, stopped, other, last = sessions
    assert [first, other, last] == [each.id for each in replicas]
    assert replicas[0].verification is not None
    assert replicas[0].verification.session == verification
    assert read("hooks") == [
        f"{when} {session} {NAME} {phase}"
        for session in (first, stopped, last)
        for when, phase in (("pre", "pre_freeze"), ("post", "post_thaw"))
    ]
    night = [each for each in told if each.get("SESSION") == first]
    assert {each["SPEC"] for each in night} == {NAME}
    phases = ["identify", "select", "plan", "prepare", "freeze", "snapshot", "thaw", "record"]
    assert list(dict.fromkeys(each["PHASE"] for each in night if "PHASE" in each)) == phases
    assert night[-1]["MESSAGE"] == "completed"
    (aborted,) = [each for each in told if each.get("SESSION") == stopped and each["PRIORITY"] == "3"][-1:]
    assert aborted["MESSAGE"] == "aborted: Stopped on request (SIGTERM)."
    assert not any("A hook failed" in each["MESSAGE"] for each in told if each.get("SESSION") == stopped)
    assert any(each["SPEC"] == cluster.ref and each["MESSAGE"].startswith("Waiting") for each in told)
    assert any(
        "ended with status 3 and said: not today" in each["MESSAGE"] for each in told if each.get("SESSION") == last
    )


def check_morning(machine: Machine) -> None:
    pids, states = ["0"], []
    for name in ("before", "after", "again"):
        with open(f"{machine.share}/{name}") as f:
            state, *properties, cgroup = f.read().splitlines()
        unit = dict(each.split("=") for each in properties)
        pids.append(unit.pop("MainPID"))
        states.append(state)
        assert unit == {"ActiveState": "active", "SubState": "running"}, name
        assert cgroup == "0::/system.slice/database.service", name
    assert len(set(pids)) == 4, "it runs each time, and is another one"
    with open(f"{machine.share}/jobs") as f:
        assert f.read().split() == ["start", "stop", "start", "stop", "start"]
    # The row that came after the backup is gone, on a timeline of its own, and there again with the undo.
    assert states == ["1001|00000001", "1000|00000002", "1001|00000001"]
