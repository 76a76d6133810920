# SPDX-License-Identifier: Apache-2.0
"""A machine of its own in user-mode Linux: the same programs, another kernel, to be rebooted or cut off.

Its root is the host's, read-only, under an overlay in its own memory, so that nothing it writes reaches the host, but
for one folder that both share and the disks it is given. See user-mode-linux, Documentation/virt/uml in the kernel.
"""

import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass

from slackwater.demo.inventory import MARK
from slackwater.demo.lab import Lab
from slackwater.system.command import run

_ROOT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
mount -t proc proc /proc
insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root /mnt/lower
mount -t hostfs -o / none /mnt/lower
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work,xino=off /mnt/root
cd /mnt/root
"""
INIT = f"""{_ROOT}
mount -t sysfs sysfs sys
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs tmpfs run
mkdir -m 2775 run/postgresql && chown postgres: run/postgresql
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t hostfs -o {{share}} none .{{share}}
exec switch_root /mnt/root /bin/bash {{share}}/first
"""
#: Process 1 once the root is its own: not by chroot(2), which does not follow into a namespace.
FIRST = """
/bin/bash {share}/script >{share}/output 2>&1
echo $? >{share}/status
sync
echo o >/proc/sysrq-trigger
sleep 10
"""
#: systemd as process 1, with nothing of the host's but what a unit of the script needs: no udev, no generators.
INIT_SYSTEMD = f"""{_ROOT}
mount -t hostfs -o {{share}} none .{{share}}
rm -rf usr/lib/systemd/system-generators/* usr/lib/systemd/system/*.target.wants etc/systemd/system/*.wants
mkdir -p var/log etc/systemd/system usr/lib/systemd/system/sockets.target.wants
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket usr/lib/systemd/system/sockets.target.wants/
rm -rf var/log/journal
echo 5e1f00000000400080000000000000aa >etc/machine-id
cat >etc/systemd/system/script.service <<END
[Unit]
Requires=systemd-journald.service
After=basic.target systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/bash -c '/bin/bash {{share}}/script >{{share}}/output 2>&1; echo \\$? >{{share}}/status; sync'
ExecStopPost=systemctl poweroff --force --force
END
exec switch_root /mnt/root /lib/systemd/systemd --unit=script.service
"""


@dataclass(frozen=True)
class Machine:
    """A machine that runs a script."""

    process: "subprocess.Popen[bytes]"
    share: str
    """A folder that it and the host both see at this path. Files that the guest has read stay in its cache."""

    def wait(self, timeout_s: float = 60.0) -> tuple[int, str]:
        """Wait until the script has ended and the machine is off: its status, and what it said. 255: it never ended."""
        try:
            self.process.wait(timeout_s)
        finally:
            self.cut()
        with open(f"{self.share}/console", errors="replace") as f:
            console = f.read()
        try:
            with open(f"{self.share}/status") as status, open(f"{self.share}/output", errors="replace") as output:
                return int(status.read() or 255), output.read()
        except FileNotFoundError:
            return 255, console

    def cut(self) -> None:
        """Take its power away: what it had not written to its disks is lost. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its threads for the disks too, which outlive the first one
        self.process.wait()


@functools.cache
def has_more_registers() -> bool:
    """Whether this processor has more registers than user-mode Linux has room for, see `registers.c`."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        return "amx_tile" in f.read()


def registers(folder: str) -> str:
    """Compile what makes up for it."""
    source, library = os.path.join(os.path.dirname(__file__), "registers.c"), f"{folder}/registers.so"
    run("cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source)
    return library


def boot(
    lab: Lab, script: str, *disks: str, memory_mib: int = 768, systemd: bool = False, urgent: bool = False
) -> Machine:
    """Start a machine that runs `script` with bash and switches itself off.

    Args:
        lab: whose folder it uses, and whose sweep ends it.
        script: what to run, as root.
        disks: image files, the first of which is /dev/ubda, the second /dev/ubdb.
        memory_mib: its memory, of which it takes from the host what it touches.
        systemd: whether systemd is its process 1, and the script a unit of it.
        urgent: whether it goes before others here, since deadlines count in there; with systemd they always do.
    """
    share = tempfile.mkdtemp(prefix="machine-", dir=lab.folder)
    init = INIT_SYSTEMD if systemd else INIT
    for name, text in (("script", script), ("init", init), ("first", FIRST)):
        with open(f"{share}/{name}", "w") as f:
            f.write(text if name == "script" else text.replace("{share}", share))
    os.chmod(f"{share}/init", 0o755)  # noqa: S103
    preload = {"LD_PRELOAD": registers(share)} if has_more_registers() else {}
    with open(f"{share}/console", "wb") as console:
        process = subprocess.Popen(
            [
                *(["nice", "--adjustment=-10"] if systemd or urgent else []),
                "linux.uml", f"mem={memory_mib}M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
                "con=null", "con0=null,fd:1", f"umid={lab.name}-{os.path.basename(share)}", f"uml_dir={share}/",
                f"init={share}/init", "systemd.show_status=false",
                *(f"ubd{number}={disk}" for number, disk in enumerate(disks)),
            ],
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            env={**os.environ, **preload, "TMPDIR": "/dev/shm", MARK: lab.name},
        )  # fmt: skip
    return Machine(process, share)
