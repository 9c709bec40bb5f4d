"""What holds in the end, and the sample configuration."""

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from blobfs.cli.config_file import NOT_KEYS, config_values
from blobfs.cli.main import blobfs
from blobfs.cli.options import PARAMETERS

SAMPLE = Path(__file__).parents[2] / "docs" / "blobfs.toml"
ARGUMENTS = {str(param.name) for param in PARAMETERS if isinstance(param, click.Argument)}
KEYS = {str(param.name) for param in PARAMETERS} - NOT_KEYS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, and none of the caller's options."""
    for name in [name for name in os.environ if name.startswith("BLOBFS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("blobfs.cli.options.default_memory_bytes", lambda usual_bytes: usual_bytes)
    return tmp_path


def show(*options: str) -> str:
    result = CliRunner().invoke(blobfs, ["config", "show", *options])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def uncommented(text: str) -> str:
    """Return the text with its settings in force."""
    return re.sub(r"^# (?=[a-z0-9-]+ = )", "", text, flags=re.MULTILINE)


@pytest.fixture
def sample(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "sample.toml"
    file.write_text(uncommented(SAMPLE.read_text()))
    return config_values(file, PARAMETERS)


def test_the_sample_names_every_key_with_its_default(sample: dict[str, Any]) -> None:
    assert set(sample) == KEYS
    without_default = re.findall(
        r"^# ([a-z0-9-]+) = .*# (?:no default|default:)", SAMPLE.read_text(), re.MULTILINE
    )
    defaults = json.loads(show("--json"))
    unset = {each["key"] for each in defaults if each["value"] is None} - {"prefix", "endpoint"}
    assert unset | ARGUMENTS == set(without_default)
    for each in defaults:
        if each["value"] is not None:
            assert sample[each["key"].replace("-", "_")] == each["value"], each["key"]


def test_the_sample_as_it_stands_changes_nothing() -> None:
    assert show("--config", str(SAMPLE)) == show()


def test_each_setting_is_shown_with_its_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = home / "blobfs.toml"
    file.write_text('memory = "1GiB"\nverify = "all"\numask = 0o077\n')
    monkeypatch.setenv("BLOBFS_VERIFY", "off")
    lines = show(
        "--config", str(file), "--block-size", "4M", "-o", "ro", "--metrics", "unix:/run/m"
    ).splitlines()
    assert f'memory = "1GiB"  # {file}' in lines
    assert f'umask = "077"  # {file}' in lines
    assert 'verify = "off"  # BLOBFS_VERIFY' in lines
    assert 'block-size = "4MiB"  # command line' in lines
    assert "read-only = true  # command line" in lines
    assert 'metrics = "unix:/run/m"  # command line' in lines
    assert "timeout = 60.0  # default" in lines
    assert "# cache-dir =  # default" in lines


def test_what_is_shown_is_a_configuration_that_gives_the_same(tmp_path: Path) -> None:
    file = tmp_path / "shown.toml"
    file.write_text(
        show("--memory", "1GiB", "--uid", "7", "--cache-dir", "/var/ca che", "--metrics", "[::1]:9464")
    )
    again = show("--config", str(file))
    assert re.sub(r"  # .*", "", again) == re.sub(r"  # .*", "", file.read_text())


def test_of_two_credentials_the_one_that_is_not_used_is_marked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("key", "sas"):
        (home / name).write_text("secret")
    file = home / "blobfs.toml"
    file.write_text(f'sas-file = "{home}/sas"\n')
    monkeypatch.setenv("BLOBFS_ACCOUNT_KEY_FILE", f"{home}/key")
    lines = show("--config", str(file)).splitlines()
    assert f'account-key-file = "{home}/key"  # BLOBFS_ACCOUNT_KEY_FILE' in lines
    assert f'# sas-file = "{home}/sas"  # {file}, not used: another credential comes first' in lines


def test_a_wrong_value_is_refused_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOBFS_MEMORY", "lots")
    result = CliRunner().invoke(blobfs, ["config", "show"])
    assert result.exit_code == click.UsageError.exit_code
    assert "BLOBFS_MEMORY: " in result.stderr
