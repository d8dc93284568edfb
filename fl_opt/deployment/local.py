"""Flower's own engines on one machine, started, killed, started again, and ended.

:class:`LocalDeployment` runs a SuperLink and SuperNodes on loopback; :class:`LocalSimulation`
runs ``flwr run`` against the SuperLink that Flower manages for simulations. Both keep
Flower's files in a temporary ``FLWR_HOME`` and, when left, end every process that runs with
it, one by one.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from fl_opt.deployment.certificates import (
    ServerCertificate,
    make_authority,
    make_node_key,
    make_server_certificate,
)
from fl_opt.deployment.home import CLIENTAPP, LOOPBACK, SERVERAPP, DeploymentError, free_ports
from fl_opt.deployment.runs import FinishedRun, FlowerEngine, StartedRun, Traffic

__all__ = [
    "DeploymentError",
    "FinishedRun",
    "LocalDeployment",
    "LocalSimulation",
    "StartedRun",
    "Traffic",
]

_START_TIMEOUT = 60.0  # seconds: a cold import of flwr on a busy machine takes several
_SLOW_STARTS = 3  # that are forgiven: the next one finds its files in memory
SUPERLINK: Final = "superlink"
"""Name of the SuperLink's process; those of SuperNodes are :func:`supernode_name`."""


class LocalDeployment(FlowerEngine):
    """A SuperLink and SuperNodes on loopback, on free ports.

    Every part can be killed as ``kill -9`` does it, and started again on the port it had.
    SuperNodes connect to ``gateway``, a host and port, where that is set: to a proxy, say.

    Parameters
    ----------
    num_supernodes : int, default 2
        SuperNode ``i`` gets the node config ``partition-id=i num-partitions=N``.
    persistent : bool, default False
        Keep the SuperLink's state in a database, so that it knows its SuperNodes and runs
        after a restart. Without, it turns SuperNodes away after a restart, and they end.
    secure : bool, default False
        TLS by a certificate authority made for the occasion, and SuperNodes that identify
        themselves by keys that the SuperLink knows.
    poll_seconds : float, optional
        Start SuperNodes by ``fl-opt supernode``, which asks for messages this often, and
        not by ``flower-supernode``, which sleeps three seconds.

    Examples
    --------
    >>> with LocalDeployment(2) as deployment:              # doctest: +SKIP
    ...     run = deployment.run(Path("."), "num-server-rounds=3", echo=True)

    >>> with LocalDeployment(3) as deployment:              # doctest: +SKIP
    ...     run = deployment.start_run(Path("."), "round.timeout=20")
    ...     deployment.kill_supernode(1)
    ...     deployment.start_supernode(1)
    ...     assert deployment.wait(run).completed
    """

    connection = "loopback"

    def __init__(
        self,
        num_supernodes: int = 2,
        *,
        persistent: bool = False,
        secure: bool = False,
        poll_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.num_supernodes = num_supernodes
        self.poll_seconds = poll_seconds
        self.persistent = persistent
        self.secure = secure
        self.keys = self.home / "keys"
        self.gateway = ""
        self._certificate: ServerCertificate | None = None
        self._port, *self._node_ports = free_ports(1 + num_supernodes)

    def _start(self) -> None:
        if self.secure:
            self._certificate = make_server_certificate(
                self.keys, make_authority(self.keys), [LOOPBACK]
            )
        self._write_connection()
        self.start_superlink()
        for index in range(self.num_supernodes):
            self.start_supernode(index)

    @property
    def port(self) -> int:
        """Of the SuperLink."""
        return self._port

    @property
    def address(self) -> str:
        """Where the SuperLink listens, as host and port."""
        return f"{LOOPBACK}:{self._port}"

    def start_superlink(self) -> None:
        """Start the SuperLink, also after :meth:`kill_superlink`, and wait until it answers.

        Raises
        ------
        DeploymentError
            If it ends or does not answer in time.
        """
        command = [self._program("flower-superlink")]
        if self._certificate is None:
            command += ["--insecure"]
        else:
            command += ["--ssl-ca-certfile", str(self._certificate.authority)]
            command += ["--ssl-certfile", str(self._certificate.certificate)]
            command += ["--ssl-keyfile", str(self._certificate.key)]
            command += ["--enable-supernode-auth"]
        command += ["--host", LOOPBACK, "--port", str(self._port)]
        if self.persistent:
            command += ["--database", str(self.home / "superlink.db")]
        self._wait_until_healthy(self._launch(SUPERLINK, *command))

    def kill_superlink(self) -> None:
        """Kill the SuperLink and the ServerApps that it runs.

        SuperNodes finish what they are doing and try to reach it, at first every second or
        two, later every 20.
        """
        self._kill(SUPERLINK)

    def start_supernode(self, index: int) -> None:
        """Start a SuperNode, also after :meth:`kill_supernode`; it connects by itself.

        To the SuperLink a restarted SuperNode is another node, as its identity is a key pair
        made when it starts; not so where it has a key to keep (``secure``).
        """
        identity = ["--insecure"] if self._certificate is None else self._identity(index)
        self.start_supernode_with(index, identity)

    def start_supernode_with(self, index: int, options: Sequence[str]) -> None:
        """Start a SuperNode with options of its own in place of those that let it in."""
        command = [self._program("flower-supernode")]
        if self.poll_seconds:
            interval = str(self.poll_seconds)
            sharing = str(self.num_supernodes)
            command = [self._program("fl-opt"), "supernode", "--poll-seconds", interval]
            command += ["--share-cores", sharing]
        command += options
        command += ["--superlink", self.gateway or self.address]
        command += ["--host", LOOPBACK, "--port", str(self._node_ports[index])]
        partition = f"partition-id={index} num-partitions={self.num_supernodes}"
        self._launch(supernode_name(index), *command, "--node-config", partition)

    def _identity(self, index: int) -> list[str]:
        """Return the options with a SuperNode's key, which is made and registered once."""
        key = self.keys / f"{supernode_name(index)}.key"
        if not key.exists():
            self.register_key(make_node_key(self.keys, supernode_name(index)).public)
        assert self._certificate is not None  # noqa: S101 -- for mypy: it is secure
        certificate = str(self._certificate.authority)
        return ["--root-certificates", certificate, "--auth-supernode-private-key", str(key)]

    def register_key(self, public: Path) -> int:
        """Have the SuperLink let in whoever has the private key to a public one.

        Returns
        -------
        int
            The id of the node that this will be.

        Raises
        ------
        DeploymentError
            If it does not.
        """
        answer = self._flwr(
            *("supernode", "register", str(public), self.connection, "--format", "json")
        )
        if not answer.get("success"):
            raise DeploymentError(f"flwr supernode register {public.name}: {answer}")
        return int(answer["node-id"])

    def kill_supernode(self, index: int) -> None:
        """Kill a SuperNode and the ClientApp that it runs.

        The SuperLink takes the node for connected until two heartbeats are missing, which is
        38 to 60 seconds; a message to it is answered with an error only then.
        """
        self._kill(supernode_name(index))

    def unregister_supernode(self, node_id: int) -> None:
        """Have the SuperLink drop a node that is gone, and answer its messages with errors.

        Raises
        ------
        DeploymentError
            If there is no such node.
        """
        answer = self._flwr(
            *("supernode", "unregister", str(node_id), self.connection, "--format", "json")
        )
        if not answer.get("success"):
            raise DeploymentError(f"flwr supernode unregister {node_id}: {answer}")

    def node_id(self, index: int) -> int | None:
        """Return the id that a SuperNode got when it connected; None before."""
        found = re.search(r"SuperNode ID: (\d+)", self._read_log(supernode_name(index)))
        return int(found[1]) if found else None

    def received(self, index: int) -> int:
        """Return how many messages a SuperNode has received since it was started."""
        return self._read_log(supernode_name(index)).count("Received successfully")

    def supernode_log(self, index: int) -> Path:
        """Return the file that a SuperNode, and all that it starts, writes its log to."""
        return self._log(supernode_name(index))

    def is_busy(self, index: int) -> bool:
        """Whether a SuperNode is running a ClientApp, that is, handling a message."""
        return any(self.apps(CLIENTAPP, supernode_name(index)))

    def kill_serverapp(self) -> None:
        """Kill the ServerApps of all runs; the SuperLink stays.

        It says that their runs are running until two heartbeats are missing. Meanwhile
        SuperNodes answer what they were sent; a new run can start at once.

        Raises
        ------
        DeploymentError
            If there is none.
        """
        if not any(self.apps(SERVERAPP)):
            raise DeploymentError("no ServerApp is running")
        self._kill_all(lambda: self.apps(SERVERAPP))

    def _write_connection(self) -> None:
        trust = "insecure = true"
        if self._certificate is not None:
            trust = f"root-certificates = {json.dumps(str(self._certificate.authority))}"
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{self.connection}"\n\n[superlink.{self.connection}]\n'
            f'address = "{LOOPBACK}:{self._port}"\n{trust}\n'
        )

    def _wait_until_healthy(self, superlink: subprocess.Popen[bytes]) -> None:
        url, context = f"http://{LOOPBACK}:{self._port}/health", None
        if self._certificate is not None:
            url = url.replace("http:", "https:")
            context = ssl.create_default_context(cafile=str(self._certificate.authority))
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            if superlink.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=1.0, context=context):  # noqa: S310
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise DeploymentError(f"the SuperLink did not start: {self.last_line(SUPERLINK)}")


class LocalSimulation(FlowerEngine):
    """``flwr run`` in simulation: Flower starts a SuperLink of its own, which is ended here."""

    connection = "local"  # the name in the config that flwr writes into a new FLWR_HOME

    def __init__(self) -> None:
        super().__init__()
        port, control = free_ports(2)
        self.environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] = str(port)
        self.environment["FLWR_LOCAL_CONTROL_API_PORT"] = str(control)

    def _start(self) -> None:
        """Nothing: the first ``flwr run`` starts the SuperLink."""

    def start_run(
        self,
        app: Path,
        run_config: Mapping[str, bool | int | float | str] | str = "",
        *options: str,
        timeout: float = 60.0,
    ) -> StartedRun:
        """Start a run with ``flwr run``: again, where a busy machine was too slow for Flower.

        Flower gives its SuperLink 15 seconds to start, whatever else the machine does.
        """
        for _ in range(_SLOW_STARTS):
            try:
                return super().start_run(app, run_config, *options, timeout=timeout)
            except DeploymentError as error:
                if "Failed to start local SuperLink within" not in str(error):
                    raise
        return super().start_run(app, run_config, *options, timeout=timeout)


def supernode_name(index: int) -> str:
    """Return the name of a SuperNode's process: of its log, and of all that it starts."""
    return f"supernode-{index}"
