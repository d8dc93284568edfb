"""Keys and certificates of a deployment: an authority, the SuperLink's, the SuperNodes'.

All keys are of the curve P-384, which Flower wants of SuperNodes; private ones can be read by
their owner only, and no file is ever written over.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_opt.errors import ConfigError

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""As long as clients commonly accept."""
_BACKDATED = datetime.timedelta(minutes=5)  # clocks differ


@dataclass(frozen=True)
class Authority:
    """Files of a certificate authority: everybody gets the certificate, nobody the key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class ServerCertificate:
    """Files that the SuperLink needs; ``authority`` is the authority's certificate."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeKey:
    """A SuperNode's key pair: the public one is registered with the SuperLink."""

    private: Path
    public: Path


def make_authority(folder: Path) -> Authority:
    """Make a certificate authority, or return the one that is in a folder.

    Parameters
    ----------
    folder : Path
        Gets ``ca.crt`` and ``ca.key``.

    Raises
    ------
    ConfigError
        If only one of the two is there, or they cannot be written.
    """
    found = Authority(folder / "ca.crt", folder / "ca.key")
    if found.certificate.exists() and found.key.exists():
        return found
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fl-opt deployment")])
    builder = _certificate(name, name, key.public_key(), AUTHORITY_DAYS)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    usage = _usage(key_cert_sign=True, crl_sign=True)
    builder = builder.add_extension(usage, critical=True)
    _write(found.key, _pem(key), private=True)
    _write(found.certificate, _as_pem(builder.sign(key, hashes.SHA384())))
    return found


def make_server_certificate(
    folder: Path, authority: Authority, hosts: Sequence[str]
) -> ServerCertificate:
    """Make the SuperLink's key and a certificate for it.

    Parameters
    ----------
    folder : Path
        Gets ``server.crt`` and ``server.key``.
    authority : Authority
        Signs the certificate.
    hosts : sequence of str
        Names and addresses under which the SuperLink is reached. ``localhost`` and
        127.0.0.1 are in any case, as processes on its own machine use them.

    Raises
    ------
    ConfigError
        If a file is there already or cannot be written, or the authority's cannot be read.
    """
    found = ServerCertificate(
        authority.certificate, folder / "server.crt", folder / "server.key"
    )
    signer, issuer = _read_authority(authority)
    key = ec.generate_private_key(ec.SECP384R1())
    names = list(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    builder = _certificate(subject, issuer.subject, key.public_key(), SERVER_DAYS)
    for extension, critical in (
        (x509.SubjectAlternativeName([_alternative(name) for name in names]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    ):
        builder = builder.add_extension(extension, critical=critical)
    _write(found.key, _pem(key), private=True)
    _write(found.certificate, _as_pem(builder.sign(signer, hashes.SHA384())))
    return found


def make_node_key(folder: Path, name: str) -> NodeKey:
    """Make a SuperNode's key pair.

    Parameters
    ----------
    folder : Path
        Gets ``<name>.key`` and ``<name>.pub``, in the format of OpenSSH.
    name : str

    Raises
    ------
    ConfigError
        If a file is there already or cannot be written.
    """
    found = NodeKey(folder / f"{name}.key", folder / f"{name}.pub")
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    _write(found.private, private, private=True)
    _write(found.public, public + b"\n")
    return found


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read_authority(
    authority: Authority,
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"authority {authority.certificate.parent}: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"authority {authority.key}: not a key of an elliptic curve")
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"authority {authority.key}: not the key of {authority.certificate}")
    return key, certificate


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _as_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write a new file, never over another one; a private one for its owner's eyes only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(path, flags, 0o600 if private else 0o644), "wb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigError(f"{path} exists: it is not written over") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
