# SPDX-License-Identifier: Apache-2.0
import os
import stat
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slackwater.config.files import create_whole, refuse_untrusted
from slackwater.config.places import Places
from slackwater.errors import RightsError, SlackwaterError


def places(folder: Path) -> Places:
    return Places(str(folder / "etc"), str(folder / "state"), str(folder / "run"))


def test_the_defaults_are_where_linux_expects_them() -> None:
    there = Places.from_environment({})
    assert there.settings_file == "/etc/slackwater/slackwater.toml"
    assert there.specs_dir == "/etc/slackwater/specs.d"
    assert there.catalog_file == "/var/lib/slackwater/catalog.sqlite"
    assert there.journal_file == "/var/lib/slackwater/journal.sqlite"
    assert there.owner_file == "/var/lib/slackwater/owner"
    assert there.session_lock == "/run/slackwater/session.lock"
    assert there.guard_dir == "/run/slackwater/guard"


def test_each_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLACKWATER_CONFIG_DIR", "/a")
    monkeypatch.setenv("SLACKWATER_STATE_DIR", "b")
    monkeypatch.setenv("SLACKWATER_RUN_DIR", "")
    monkeypatch.chdir(tmp_path)
    assert Places.from_environment() == Places("/a", str(tmp_path / "b"), "/run/slackwater")


def test_the_folders_are_made_for_their_owner_only(tmp_path: Path) -> None:
    there = places(tmp_path)
    there.ensure()
    there.ensure()
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in (there.state_dir, there.run_dir)] == [0o700, 0o700]
    assert not os.path.exists(there.config_dir)


def test_a_folder_that_others_may_write_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    there = places(tmp_path)
    os.mkdir(there.state_dir)
    os.chmod(there.state_dir, 0o720)
    with pytest.raises(RightsError, match="others may write it"):
        there.ensure()
    assert stat.S_IMODE(os.stat(there.state_dir).st_mode) == 0o720


def test_a_file_in_a_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SlackwaterError, match="state cannot be made"):
        places(tmp_path).ensure()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_rights_the_way_out_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for ask in (places(tmp_path).ensure, places(tmp_path).owner):
        with pytest.raises(RightsError) as caught:
            ask()
        assert caught.value.exit_status == 6
        assert "SLACKWATER_STATE_DIR" in caught.value.hint


def test_the_id_is_made_once(tmp_path: Path) -> None:
    there = places(tmp_path)
    made = there.owner()
    assert uuid.UUID(made).version == 4
    assert there.owner() == there.owner(create=False) == made
    assert stat.S_IMODE(os.stat(there.owner_file).st_mode) == 0o600
    assert os.listdir(there.state_dir) == ["owner"]


def test_many_at_once_get_one_id(tmp_path: Path) -> None:
    there = places(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: there.owner(), range(8)))) == 1


def test_a_preview_writes_no_id(tmp_path: Path) -> None:
    assert uuid.UUID(places(tmp_path).owner(create=False)).version == 4
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "root\n", "\x00\x00", "ünicode"])
def test_a_damaged_id_is_not_replaced(tmp_path: Path, text: str) -> None:
    there = places(tmp_path)
    there.ensure()
    Path(there.owner_file).write_text(text)
    with pytest.raises(SlackwaterError, match="holds no installation id"):
        there.owner()
    assert Path(there.owner_file).read_text() == text


def test_a_file_is_created_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a"
    create_whole(str(path), "first")
    with pytest.raises(FileExistsError):
        create_whole(str(path), "second")
    assert path.read_text() == "first"
    os.symlink("/nowhere", tmp_path / "link")
    with pytest.raises(FileExistsError):
        create_whole(str(tmp_path / "link"), "through a link")


def status(uid: int, mode: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("uid", "mode", "command"),
    [
        (1000, 0o600, "chown root:root /etc/x"),
        (0, 0o620, "chmod go-w /etc/x"),
        (0, 0o602, "chmod go-w /etc/x"),
    ],
)
def test_root_obeys_no_file_that_others_may_write(uid: int, mode: int, command: str) -> None:
    with pytest.raises(RightsError) as caught:
        refuse_untrusted(status(uid, mode), "/etc/x", uid=0)
    assert caught.value.hint.endswith(command)


def test_root_obeys_its_own_files_and_users_theirs() -> None:
    refuse_untrusted(status(0, 0o644), "/etc/x", uid=0)
    refuse_untrusted(status(1000, 0o666), "/etc/x", uid=1000)
