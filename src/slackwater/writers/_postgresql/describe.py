# SPDX-License-Identifier: Apache-2.0
"""All that was found, as components: what runs, what is stopped, and what cannot be asked."""

import os
import time
from collections.abc import Mapping

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, ComponentRef, Credentials
from slackwater.model.facts import Fact, Finding, Severity
from slackwater.model.hold import Hold
from slackwater.writers._postgresql import debian, files
from slackwater.writers._postgresql.ask import Answers, ask, unlogged
from slackwater.writers._postgresql.confirm import door_of
from slackwater.writers._postgresql.connect import PATIENCE_S
from slackwater.writers._postgresql.control import OWNER, PG_CTLCLUSTER, facts_of_control
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers._postgresql.find import Postmaster, option
from slackwater.writers._postgresql.managed import HOW, manager_of, paused

_TROUBLES = {
    "in-container": (
        "runs in a mount namespace of its own (a container, or a sandboxed unit), where its paths mean other files",
        "Back it up from inside, or with the container's own tools.",
    ),
    "permission": ("belongs to another user, and we are not root", "Run slackwater as root."),
    "lock-file-gone": (
        "has lost its postmaster.pid: its data directory was removed or replaced under it",
        "Recover it, or stop it.",
    ),
}


def name_of(server: Postmaster) -> str:
    """The component's name: Debian's where Debian keeps the configuration, else the data directory."""
    if server.trouble == "in-container":
        return f"container-{server.pid}:{server.data_directory}"
    return debian.name_of(option(server.arguments, "config_file")) or server.data_directory


def running(server: Postmaster, credentials: Credentials) -> Component:
    """Describe a server that runs; what it does not tell becomes a refusal."""
    name = name_of(server)
    ref = ComponentRef("postgresql", name)
    if server.trouble:
        return _silent(ref, name, server)
    began_s = time.monotonic()
    facts: dict[str, Fact] = {**facts_of_control(server, "" if name.startswith("/") else name)}
    try:
        if not server.lock.socket_directory:
            raise SlackwaterError(
                "The server listens on no unix socket.", hint="Set unix_socket_directories.", code="no-socket"
            )
        answers = ask(door_of(server), credentials)
        lost = unlogged(door_of(server), credentials, answers.databases, ends_s=began_s + PATIENCE_S)
    except SlackwaterError as e:
        refused = Finding(e.reason, Severity.REFUSAL, e.sentence, e.hint)
        return _component(ref, server, facts, (refused, *_managed(facts, server.data_directory, server.pid)))
    facts |= {**_facts_of(answers, server), **_followed(answers)}
    findings = (*_findings(server, answers), *lost, *_managed(facts, server.data_directory, server.pid))
    return _component(ref, server, facts, findings, answers)


def stopped(cluster: debian.DebianCluster) -> Component:
    """Describe a Debian cluster that does not run, from its files."""
    directory = os.path.realpath(cluster.data_directory)
    major, _, name = cluster.name.partition("/")
    facts: dict[str, Fact] = {
        "version": major, "major": major, "cluster": name, "control": PG_CTLCLUSTER if debian.controls() else OWNER,
        "bin_dir": debian.programs_of(major), "data_directory": directory, "start_directory": directory,
        "options": f"-c config_file={cluster.config_file}", "config_file": cluster.config_file, "port": cluster.port,
        "log_file": f"/var/log/postgresql/postgresql-{major}-{name}.log",
        "uid": cluster.uid, "gid": cluster.gid,
    }  # fmt: skip
    findings: tuple[Finding, ...] = ()
    try:
        control = read_control_file(directory)
        facts |= {
            "system_identifier": control.system_identifier, "timeline": control.timeline,
            "wal_level": control.wal_level,
            "restore_command": _restore_command(cluster, directory),
        }  # fmt: skip
        if os.path.exists(f"{directory}/standby.signal"):
            findings = (_standby(),)
    except SlackwaterError as e:
        findings = (Finding(e.reason, Severity.REFUSAL, e.sentence, "See whether its volume is mounted."),)
    findings = (*findings, *_missing(directory), *_managed(facts, directory, None))
    asked = (cluster.config_file, *(f"{os.path.dirname(cluster.config_file)}/{each}" for each in _BESIDE))
    return Component(
        ref=ComponentRef("postgresql", cluster.name),
        caption=f"PostgreSQL {major}, stopped",
        running=False,
        files=files.file_sets(directory),
        survives_power_cut=True,
        configuration=files.configuration(directory, (each for each in asked if os.path.isfile(each))),
        facts=facts,
        findings=findings,
    )


_BESIDE = ("pg_hba.conf", "pg_ident.conf")


def _component(
    ref: ComponentRef,
    server: Postmaster,
    facts: Mapping[str, Fact],
    findings: tuple[Finding, ...],
    answers: Answers | None = None,
) -> Component:
    settings = answers.settings if answers else {}
    return Component(
        ref=ref,
        caption=f"PostgreSQL {settings.get('server_version', '')} on port {server.lock.port}".replace("  ", " "),
        running=True,
        files=files.file_sets(server.data_directory),
        survives_power_cut={settings.get("fsync"), settings.get("full_page_writes")} == {"on"},
        offers=(Hold.LOG_BRIDGE,) if answers and not answers.standby and not answers.unbridged else (),
        can_stop=answers is not None and not answers.standby and not facts.get("managed_by"),
        main_pid=server.pid,
        configuration=files.configuration(server.data_directory, answers.configuration if answers else ()),
        facts=dict(facts),
        findings=findings,
    )


def _facts_of(answers: Answers, server: Postmaster) -> dict[str, Fact]:
    settings = answers.settings
    names = ("wal_level", "archive_mode", "restore_command", "data_checksums", "fsync", "full_page_writes",
             "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions",
             "max_locks_per_transaction", "config_file", "hba_file", "ident_file")  # fmt: skip
    return {
        "version": settings.get("server_version", ""),
        "port": server.lock.port,
        "socket_directory": server.lock.socket_directory,
        "system_identifier": answers.system_identifier,
        "timeline": answers.timeline,
        **{name: int(value) if (value := settings.get(name, "")).isdecimal() else value for name in names},
    }


def _followed(answers: Answers) -> dict[str, Fact]:
    """Who follows its log, for the findings of a recovery."""
    standbys = "; ".join(answers.standbys)
    return {"standbys": standbys, "slots": ", ".join(answers.slots), "synchronous": answers.synchronous}


def _findings(server: Postmaster, answers: Answers) -> tuple[Finding, ...]:
    found = list(_missing(server.data_directory))
    if answers.standby:
        found.append(_standby())
    elif answers.unbridged:
        found.append(_unbridged(answers.unbridged))
    if not _runs_in(server, answers.settings["data_directory"]):
        found.append(Finding(
            "moved", Severity.REFUSAL,
            f"The server runs on {server.data_directory}, and its settings name {answers.settings['data_directory']}: "
            "its files were moved under it.",
            "Restart it on the files that are meant.",
        ))  # fmt: skip
    found += [_unsafe(name) for name in ("fsync", "full_page_writes") if answers.settings.get(name) == "off"]
    if answers.lossy:
        found.append(Finding(
            "synchronous-commit-off", Severity.WARNING,
            f"synchronous_commit is off for {'; '.join(answers.lossy)}: the last commits acknowledged there may be "
            "missing after a recovery.",
            "Set it to on or local where no acknowledged commit may be lost.",
        ))  # fmt: skip
    return tuple(found)


def _unsafe(name: str) -> Finding:
    return Finding(
        f"{name.replace('_', '-')}-off", Severity.WARNING,
        f"{name} is off: the engine does not promise to recover from a power cut, so an image of one instant is not "
        "enough.",
        f"Set {name} to on, or back it up stopped.",
    )  # fmt: skip


def _unbridged(why: str) -> Finding:
    return Finding(
        "no-log-bridge", Severity.NOTE,
        f"Files on several volumes cannot be bridged by its log: {why}. Its processes are frozen instead.",
        "docs/how-to/postgresql-volumes.md lists what a log bridge needs.",
    )  # fmt: skip


def _standby() -> Finding:
    return Finding(
        "standby", Severity.REFUSAL,
        "It is a standby: its recovery belongs to whatever manages the cluster.",
        "Back up the primary.",
    )  # fmt: skip


def _missing(directory: str) -> tuple[Finding, ...]:
    return tuple(
        Finding("link-broken", Severity.REFUSAL, f"{directory}/{via} leads nowhere.", "Is its volume mounted?")
        for via in files.dangling(directory)
    )  # fmt: skip


def _managed(facts: dict[str, Fact], directory: str, pid: int | None) -> tuple[Finding, ...]:
    manager = manager_of(directory, pid)
    if not manager:
        return ()
    facts |= {"managed_by": manager, "manager_paused": paused(manager, directory), "managed_how": HOW[manager]}
    return (Finding(
        "managed", Severity.WARNING,
        f"{manager} manages this server: it can be backed up, and must be paused before it is recovered.",
        HOW[manager],
    ),)  # fmt: skip


def _runs_in(server: Postmaster, directory: str) -> bool:
    try:
        return os.path.samestat(os.stat(directory), os.stat(f"/proc/{server.pid}/cwd"))
    except OSError:
        return False


def _restore_command(cluster: debian.DebianCluster, directory: str) -> str:
    found = ""
    for path in (cluster.config_file, f"{directory}/postgresql.auto.conf"):
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                found = debian.setting(f.read(), "restore_command") or found
        except OSError:
            continue
    return found


def _silent(ref: ComponentRef, name: str, server: Postmaster) -> Component:
    why, hint = _TROUBLES[server.trouble]
    facts: dict[str, Fact] = {"data_directory": server.data_directory}
    if server.trouble == "lock-file-gone":  # it can still be stopped, and recovered
        facts |= facts_of_control(server, "" if name.startswith("/") else name)
    return Component(
        ref=ref,
        caption="PostgreSQL, not asked",
        running=True,
        files=(),
        survives_power_cut=False,
        main_pid=server.pid,
        facts=facts,
        findings=(Finding(server.trouble, Severity.REFUSAL, f"The server {server.pid} {why}.", hint),),
    )
