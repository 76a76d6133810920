# SPDX-License-Identifier: Apache-2.0
"""Pages of the documentation that are typed: what is typed of a page, what it says that is printed, and a place for it.

How a page is written, so that it can be typed:

- a block `sh` is typed as it stands;
- in a block `console` the lines that begin with `# ` are typed, lines that begin with `> ` go on with one, and the
  others are what it prints: each has to come, in this order; what comes in between may be left out;
- a block `toml` or `ini` whose first line is `# ` and an absolute path is written to that file;
- `<!-- not typed: WHY -->` in the line before a block leaves that block out;
- `/dev/vdb`, `/dev/vdc` and so on are empty disks.

In what is printed, the id of a session, a time, a duration, a size, a UUID, a position of a log and the number of a
process or a transaction stand for any other of their kind, and `…` stands for anything.

To see what a page prints: `tests/isolated -m tests.e2e.pages docs/how-to/PAGE.md`.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from slackwater.demo import needs
from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, in_memory

_BLOCK = re.compile(r"^(?:<!-- not typed: (?P<why>.+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.S | re.M)
_DISK = re.compile(r"/dev/vd[b-z]\b")
_DISK_BYTES = 320 * MIB
_KINDS = (
    (re.compile(r"\b\d{4}-\d\d-\d\dT[\d:.]+Z"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? \w+"), "TIME"),
    (re.compile(r"\b\d{4}-\d\d-\d\d-\d+\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9A-F]+/[0-9A-F]{6,8}\b"), "LSN"),
    (re.compile(r"\b\d+(\.\d+)? (B|[KMGT]iB)( \(\d+%\))?(?!\w)"), "SIZE"),
    (re.compile(r"<?\b\d+(\.\d+)? ?(ms|s|min|h|d)\b( ago)?|\bjust now\b"), "TOOK"),
    (re.compile(r"\b(before:|xid |process |at most )\d+"), r"\1N"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)
#: What a page may change and a machine has only once: for the page alone. `/etc` is a copy.
_PLACE = """
truncate -s 2G "$PLACE.img"
mkfs.ext4 -q "$PLACE.img"
mount -o loop "$PLACE.img" "$PLACE"
cp -a /etc "$PLACE/etc"
mkdir -p "$PLACE/etc" "$PLACE/mnt" "$PLACE/srv" "$PLACE/lib/postgresql" "$PLACE/log/postgresql"
rm -rf "$PLACE/etc/postgresql" "$PLACE/etc/slackwater"
install -d -o postgres -g postgres "$PLACE/etc/postgresql" "$PLACE/lib/postgresql" "$PLACE/log/postgresql"
mount -t tmpfs -o mode=755 tmpfs /run
install -d -o postgres -g postgres -m 2775 /run/postgresql
for each in etc:etc mnt:mnt srv:srv lib:var/lib log:var/log; do
    mount --bind "$PLACE/${each%%:*}" "/${each#*:}"
done
ip link set lo up
"""


@dataclass(frozen=True)
class Step:
    """Something that is typed, and what the page says that it prints."""

    typed: str
    printed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """What is typed of a page, and why what is left out is left out."""

    name: str
    steps: tuple[Step, ...]
    left_out: tuple[str, ...]

    @property
    def of_its_own(self) -> bool:
        """Whether it begins with an empty disk."""
        return any(_DISK.search(step.typed) for step in self.steps)


def read(path: Path) -> Page:
    """Read a page."""
    return parse(path.name, path.read_text(encoding="utf-8"))


def parse(name: str, text: str) -> Page:
    """Take the steps out of a page's text."""
    steps: list[Step] = []
    left_out = []
    for block in _BLOCK.finditer(text):
        if block["why"]:
            left_out.append(block["why"])
        elif block["kind"] == "sh":
            steps.append(Step(block["text"]))
        elif block["kind"] == "console":
            steps += _session(block["text"])
        elif block["kind"] in ("toml", "ini") and (path := re.match(r"# (/\S+)\n", block["text"])):
            folder = shlex.quote(os.path.dirname(path[1]))
            steps.append(Step(f"mkdir -p {folder}; cat > {shlex.quote(path[1])} <<'WRITTEN'\n{block['text']}WRITTEN"))
    return Page(name, tuple(steps), tuple(left_out))


def _session(text: str) -> list[Step]:
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# "):
            found.append(([line[2:]], []))
        elif line.startswith("> "):
            found[-1][0].append(line[2:])
        elif line.strip():
            found[-1][1].append(line)
    return [Step("\n".join(typed), tuple(printed)) for typed, printed in found]


@dataclass(frozen=True)
class Typed:
    """What came of typing pages."""

    status: int
    outputs: tuple[str, ...]
    """What each step printed that was begun."""


def type_in(steps: tuple[Step, ...], timeout_s: float = 550.0) -> Typed:
    """Type steps into one shell of root's, which ends at the first that fails, with empty disks and folders.

    It has mounts, processes, network and shared memory of its own, which all end with it.
    """
    with in_memory() as lab:
        place = f"{lab.folder}/place"
        os.mkdir(place)
        lines = [_PLACE, "set -eE", "trap 'echo \"FAILED ($?): $BASH_COMMAND\"' ERR"]
        for number, step in enumerate(_moved(steps, lab)):
            lines += [f"printf '\\n{lab.name} {number}\\n'", step.typed]
        path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
             "--net", "--ipc", "bash", "--norc", "-c", "set -e\n" + "\n".join(lines)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
            timeout=timeout_s, check=False,
            env={"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PLACE": place,
                 "SLACKWATER_LAB": lab.name},
        )  # fmt: skip
        _, *outputs = re.split(rf"^{lab.name} \d+\n", done.stdout, flags=re.MULTILINE)
        return Typed(done.returncode, tuple(outputs) or (done.stdout,))


def _moved(steps: tuple[Step, ...], lab: Lab) -> list[Step]:
    """The same steps on loop devices, and with the PostgreSQL that is here."""
    disks: dict[str, str] = {}
    for each in sorted({disk for step in steps for disk in _DISK.findall(step.typed)}):
        image = f"{lab.folder}/{os.path.basename(each)}.img"
        with open(image, "wb") as f:
            f.truncate(_DISK_BYTES)
        disks[each] = run("losetup", "--find", "--show", image).output.strip()
    return [Step(_DISK.sub(lambda found: disks[found[0]], _versioned(step.typed)), step.printed) for step in steps]


def _versioned(text: str) -> str:
    return re.sub(r"(?<![\w.-])15(?![\w.:-])", needs.version(), text)


def complaints(steps: tuple[Step, ...], typed: Typed) -> list[str]:
    """What was not as the pages say: a step that failed, or a line that was not printed."""
    if typed.status != 0:
        return [f"{steps[len(typed.outputs) - 1].typed}\nfailed:\n{typed.outputs[-1][-3000:]}"]
    found = []
    for step, output in zip(steps, typed.outputs, strict=True):
        lines = iter([_plain(line) for line in output.splitlines()])
        for line in step.printed:
            wanted = re.compile(".*".join(map(re.escape, _plain(_versioned(line)).split("…"))))
            if not any(wanted.fullmatch(each) for each in lines):
                found.append(f"{step.typed}\ndid not print, or not in this place:\n{line}\nbut:\n{output[-3000:]}")
                break
    return found


def _plain(line: str) -> str:
    for kind, word in _KINDS:
        line = kind.sub(word, line)
    return line.strip()


def _show(paths: list[str]) -> None:
    steps = tuple(step for path in paths for step in read(Path(path)).steps)
    typed = type_in(steps)
    for step, output in zip(steps, typed.outputs, strict=False):
        print("".join(f"# {line}\n" for line in step.typed.splitlines()) + output.rstrip("\n"))
    print(f"-- {typed.status}, {len(typed.outputs)} of {len(steps)} steps were begun")
    print(*complaints(steps, typed), sep="\n")


if __name__ == "__main__":
    _show(sys.argv[1:])
