# SPDX-License-Identifier: Apache-2.0
"""An application that is a unit of systemd, frozen in its own cgroup, stopped and started by systemd; and the guard."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.platform.machine import boot
from tests.platform.sqlite_support import APPLICATION, create

pytestmark = [pytest.mark.root, pytest.mark.uml, pytest.mark.timeout(600)]

SCRIPT = """set -u
mkdir -p /srv/shop /etc/slackwater/specs.d
mount -o subvol=shop /dev/ubda /srv/shop
cat >/etc/systemd/system/shop.service <<END
[Service]
ExecStart={python} {folder}/app.py /srv/shop/app.db wal persistent /run/acknowledged
END
for name in web idle; do printf '[Service]\nExecStart=sleep infinity\n' >/etc/systemd/system/$name.service; done
spec() {{
cat >/etc/slackwater/specs.d/$1.toml <<END
name = "$1"
[[component]]
writer = "$2"
instance = "$3"
$4
[options]
hold = "$5"
freeze_timeout = "30s"
[replica]
min_free = "1%"
END
}}
spec found sqlite /srv/shop/app.db "" process-freeze
cat >>/etc/slackwater/specs.d/found.toml <<END
[[recovery.service]]
unit = "web.service"
[[recovery.service]]
unit = "idle.service"
END
spec named files /srv/shop 'unit = "shop.service"
consistency = "application"' cold
main() {{ systemctl show --property=MainPID --value shop.service; }}
sw() {{ name=$1; shift; {python} -m slackwater "$@" --json --progress none >{share}/$name || cat {share}/$name; }}
systemctl start shop.service
until [ -s /run/acknowledged ]; do sleep 0.2; done
first=$(main)
sw frozen backup found
[ "$(main)" = "$first" ] || echo "restarted by a freeze"
systemctl start web.service
web=$(systemctl show --property=MainPID --value web.service)
sw recovered recover found --yes
again=$(systemctl show --property=MainPID --value web.service)
[ "$again" != "$web" ] && [ "$again" != 0 ] || echo "web not stopped and started: $web $again"
[ "$(systemctl is-active idle.service)" = inactive ] || echo "idle was started"
systemd-run --quiet --unit=passing sleep infinity
sed -i s/web.service/passing.service/ /etc/slackwater/specs.d/found.toml
sw refused recover found --preview >/dev/null
second=$(main)
[ "$second" != "$first" ] && [ "$second" != 0 ] || echo "not stopped and started by a recovery: $first $second"
sw stopped backup named
third=$(main)
[ "$third" != "$second" ] && [ "$third" != 0 ] || echo "not stopped and started by a backup: $second $third"
cat /proc/$third/cgroup >{share}/cgroup
cd {repository} && {python} -m tests.platform.guard_under_systemd
"""


def test_a_unit_is_frozen_stopped_and_started(lab: Lab) -> None:
    disk = lab.btrfs(512 << 20)
    create(Path(disk.subvolume("shop")) / "app.db", "wal")
    program = Path(lab.folder) / "app.py"
    program.write_text(APPLICATION)
    disk.unmount(disk.path)
    run("losetup", "--detach", disk.device)
    script = SCRIPT.format(
        python=sys.executable, folder=lab.folder, share="${0%/*}", repository=Path(__file__).parents[2]
    )
    machine = boot(lab, script, disk.image, memory_mib=1024, systemd=True)
    assert machine.wait(560) == (0, "")

    def answer(name: str) -> dict[str, Any]:
        with open(os.path.join(machine.share, name), encoding="utf-8") as f:
            return dict(json.load(f))

    frozen = answer("frozen")
    assert (frozen["plan"]["hold"], frozen["consistency"]) == ("process-freeze", "application")
    assert frozen["window"]["frozen_ms"] > 0
    (reached,) = answer("recovered")["reached"].values()
    assert reached["quick_check"] == "ok"
    (refused,) = [each for each in answer("refused")["findings"] if each["severity"] == "refusal"]
    assert refused["sentence"] == "The unit passing.service is transient: it is gone when it stops."
    stopped = answer("stopped")
    assert (stopped["plan"]["hold"], stopped["consistency"]) == ("cold", "application")
    with open(f"{machine.share}/cgroup", encoding="ascii") as f:
        assert f.read() == "0::/system.slice/shop.service\n"
