"""Keys and certificates: what they hold, who can read them, and that none is written over."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from fl_opt.cli import app
from fl_opt.deployment import make_authority, make_node_key, make_server_certificate
from fl_opt.errors import ConfigError


def handshake(folder: Path, authority: Path, name: str) -> str | None:
    """Connect to a server with the certificate in a folder; return why it is not trusted."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    client = ssl.create_default_context(cafile=str(authority))
    near, far = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except (ssl.SSLError, OSError):
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name):
            return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        near.close()
        thread.join()


def test_a_server_is_trusted_under_its_names_by_its_authority_only(tmp_path: Path) -> None:
    ours, other = make_authority(tmp_path / "ours"), make_authority(tmp_path / "other")
    made = make_server_certificate(tmp_path / "ours", ours, ["fl.example.org", "10.1.2.3"])
    for name in ("fl.example.org", "10.1.2.3", "localhost", "127.0.0.1"):
        assert handshake(tmp_path / "ours", made.authority, name) is None
    assert "mismatch" in str(handshake(tmp_path / "ours", ours.certificate, "example.org"))
    unknown = handshake(tmp_path / "ours", other.certificate, "localhost")
    assert unknown is not None


def test_private_keys_are_their_owners_alone(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    server = make_server_certificate(tmp_path, authority, [])
    node = make_node_key(tmp_path, "node")
    for path in (authority.key, server.key, node.private):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = serialization.load_ssh_public_key(node.public.read_bytes())
    private = serialization.load_ssh_private_key(node.private.read_bytes(), None)
    assert private.public_key() == public


def test_nothing_is_written_over(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    before = authority.key.read_bytes()
    assert make_authority(tmp_path) == authority
    assert authority.key.read_bytes() == before
    make_server_certificate(tmp_path, authority, [])
    with pytest.raises(ConfigError, match=r"server\.key exists"):
        make_server_certificate(tmp_path, authority, [])
    make_node_key(tmp_path, "node")
    with pytest.raises(ConfigError, match=r"node\.key exists"):
        make_node_key(tmp_path, "node")


def test_an_authority_that_does_not_fit_together(tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    authority = make_authority(tmp_path)
    authority.key.write_bytes((tmp_path / "other/ca.key").read_bytes())
    with pytest.raises(ConfigError, match="not the key of"):
        make_server_certificate(tmp_path, authority, [])
    authority.key.write_text("nonsense")
    with pytest.raises(ConfigError, match="authority"):
        make_server_certificate(tmp_path, authority, [])


def test_the_commands(tmp_path: Path) -> None:
    folder = str(tmp_path / "keys")
    made = CliRunner().invoke(
        app, ["deploy", "certificates", folder, "--host", "fl.example.org", "--json"]
    )
    assert [Path(file).name for file in json.loads(made.stdout)] == [
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
    ]
    keys = CliRunner().invoke(app, ["deploy", "node-keys", folder, "one", "two"])
    assert [Path(file).name for file in keys.stdout.split()] == [
        "one.key",
        "one.pub",
        "two.key",
        "two.pub",
    ]
    again = CliRunner().invoke(app, ["deploy", "certificates", folder])
    assert again.exit_code == 2
    assert again.stderr == f"error: {folder}/server.key exists: it is not written over\n"
