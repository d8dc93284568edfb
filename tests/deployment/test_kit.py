"""The deployment kit: its commands are ones that the programs take, its files agree."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from fl_opt.cli import app

ROOT = Path(__file__).parents[2]
KIT = ROOT / "deploy"
PAGE = (ROOT / "docs/how-to/deployment.md").read_text()
UNITS = ("flower-superlink.service", "fl-opt-supernode@.service")
COMPOSE: dict[str, Any] = yaml.safe_load((KIT / "compose.yml").read_text())


def environment(name: str) -> dict[str, str]:
    lines = shlex.split((KIT / name).read_text(), comments=True)
    return dict(line.split("=", 1) for line in lines)


def on_the_page(program: str) -> Iterator[str]:
    """Yield the commands of the page by a program, each as one line."""
    text = PAGE.replace("\\\n", " ")
    for found in re.finditer(rf"^    ({program} .*)$", text, re.MULTILINE):
        yield found[1]


def in_a_unit(name: str) -> str:
    [command] = re.findall(
        r"^ExecStart=/opt/fl-opt/bin/(.*)$",
        (KIT / name).read_text().replace("\\\n", " "),
        re.MULTILINE,
    )
    values = environment("supernode-example.env")
    command = re.sub(r"\$\{(\w+)\}", lambda m: shlex.quote(values[m[1]]), command)
    assert "$" not in command
    return command.replace("%i", "0")


def parsed(command: str) -> argparse.Namespace:
    """Read a command as the program itself does."""
    program, *arguments = shlex.split(command)
    if program == "fl-opt":
        group = typer.main.get_command(app)
        with group.make_context("fl-opt", arguments[:1], resilient_parsing=True) as context:
            _, supernode, _ = group.resolve_command(context, arguments)  # type: ignore[attr-defined]
        with supernode.make_context("supernode", arguments[1:]) as context:
            arguments = context.args
        return _parse_args_run_supernode().parse_args(arguments)
    assert program == "flower-superlink"
    return _parse_args_run_superlink().parse_args(arguments)


SUPERLINKS = [
    in_a_unit(UNITS[0]),
    COMPOSE["services"]["superlink"]["command"],
    *on_the_page("flower-superlink"),
]
SUPERNODES = [
    in_a_unit(UNITS[1]),
    COMPOSE["services"]["supernode-0"]["command"],
    COMPOSE["services"]["supernode-1"]["command"],
    *on_the_page("fl-opt supernode"),
]


@pytest.mark.parametrize("command", SUPERLINKS)
def test_every_superlink_has_tls_knows_its_nodes_and_keeps_its_state(command: str) -> None:
    options = parsed(command)
    assert not options.insecure
    assert options.ssl_certfile
    assert options.ssl_keyfile
    assert options.ssl_ca_certfile
    assert options.enable_supernode_auth
    assert options.database.endswith("state.db")
    assert (options.host, options.port) == ("0.0.0.0", 8000)  # noqa: S104 - meant


@pytest.mark.parametrize("command", SUPERNODES)
def test_every_supernode_has_a_key_an_authority_and_a_partition(command: str) -> None:
    options = parsed(command)
    assert not options.insecure
    assert options.superlink.endswith(":8000")
    assert options.root_certificates.endswith("ca.crt")
    assert options.auth_supernode_private_key.endswith(".key")
    assert re.fullmatch(r"partition-id=\d num-partitions=2", options.node_config)


def test_an_option_that_the_program_does_not_have_would_be_found() -> None:
    with pytest.raises(SystemExit):
        parsed("flower-superlink --no-such-option")
    with pytest.raises(SystemExit):
        parsed("fl-opt supernode --no-such-option")


SYSTEMD = shutil.which("systemd-analyze")


@pytest.mark.skipif(SYSTEMD is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units(name: str) -> None:
    done = subprocess.run(
        [str(SYSTEMD), "verify", str(KIT / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if UNITS[0].split(".")[0] in line]
    complaints += [line for line in done.stderr.splitlines() if "fl-opt" in line]
    not_here = "is not executable: No such file or directory"  # /opt/fl-opt
    assert not [line for line in complaints if not line.endswith(not_here)]


def test_containers_have_the_secrets_and_volumes_that_they_use() -> None:
    used: set[str] = set()
    for name, service in COMPOSE["services"].items():
        mentioned = set(re.findall(r"/run/secrets/(\S+)", service["command"]))
        assert mentioned == set(service["secrets"]), name
        used |= mentioned
        [volume] = service["volumes"]
        assert volume.partition(":")[0] in COMPOSE["volumes"]
        assert service["read_only"]  # the anchor was merged
        assert service["image"] == "fl-opt"
    assert used == set(COMPOSE["secrets"])
    build = COMPOSE["services"]["superlink"]["build"]
    assert (KIT / build["context"] / build["dockerfile"]).resolve() == KIT / "Dockerfile"


def test_the_image_gets_all_that_it_copies() -> None:
    dockerfile = (KIT / "Dockerfile").read_text()
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        word
        for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= copied


def test_every_process_gets_the_same_environment() -> None:
    shared = environment("fl-opt.env")
    in_the_image = (KIT / "Dockerfile").read_text()
    for name, value in shared.items():
        assert f"{name}={value}" in in_the_image
        assert f"`{name}={value}`" in PAGE
    for unit in UNITS:
        assert "EnvironmentFile=/etc/fl-opt/fl-opt.env" in (KIT / unit).read_text()


def test_the_page_and_the_list_name_each_file_of_the_kit() -> None:
    listed = set(re.findall(r"^\| `([^`]+)`", (KIT / "README.md").read_text(), re.MULTILINE))
    assert listed == {path.name for path in KIT.iterdir()} - {"README.md"}
    for name in listed:
        assert f"deploy/{name}" in PAGE, name
