# SPDX-License-Identifier: Apache-2.0
import os
from pathlib import Path

import pytest

from slackwater.config import settings
from slackwater.errors import RightsError, UsageError


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    path = str(tmp_path / "slackwater.toml")
    read = settings.load(path)
    assert read.catalog.url == ""
    assert read.catalog.keep_sessions == 365 * 86400
    assert read.plugins.writers == read.plugins.providers == ()
    assert read.limits.wait == 0
    assert read.volumes.deny == read.writers.disable == ()
    assert set(read.origins(path).values()) == {"default"}
    assert os.listdir(tmp_path) == []


def test_each_value_knows_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "slackwater.toml"
    path.write_text('[plugins]\nwriters = ["postgresql"]\n[limits]\nwait = "1m30s"\n')
    read = settings.load(str(path))
    assert read.plugins.writers == ("postgresql",)
    assert read.limits.wait == 90
    assert read.origins(str(path)) == {
        "catalog.url": "default",
        "catalog.keep_sessions": "default",
        "plugins.writers": str(path),
        "plugins.providers": "default",
        "limits.wait": str(path),
        "volumes.deny": "default",
        "writers.disable": "default",
        "mount.root": "default",
        "mount.host": "default",
        "mount.session": "default",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[limit]\n",
            "unknown key limit; did you mean limits? (valid here: catalog, plugins, limits, volumes, writers, mount)",
        ),
        ('[limits]\nwait = "soon"', '[limits] wait: "soon" is not a duration'),
        ('[catalog]\nurl = "postgresql://x"', "[catalog] url: this version keeps its catalog in SQLite"),
        ('[plugins]\nwriters = "postgresql"', "[plugins] writers: must be a list"),
        ('[volumes]\ndeny = ["home"]', '[volumes] deny: "home" must be an absolute path'),
        ("[plugins]\nwriters = [1]", "[plugins] writers 0: must be a text in quotes"),
        ('[catalog]\npassword = "x"', "[catalog] password: a secret does not belong in this file"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "slackwater.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        settings.load(str(path))
    assert said in caught.value.sentence


@pytest.mark.skipif(os.geteuid() != 0, reason="only root trusts nobody else")
def test_root_refuses_a_file_that_others_may_write(tmp_path: Path) -> None:
    path = tmp_path / "slackwater.toml"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(RightsError, match="may be written by others"):
        settings.load(str(path))
    path.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(RightsError, match="may be written by others"):
        settings.load(str(path))
