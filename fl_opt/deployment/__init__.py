"""A SuperLink and SuperNodes: their keys and certificates, and all of it on one machine."""

from fl_opt.deployment.certificates import (
    Authority,
    ServerCertificate,
    make_authority,
    make_node_key,
    make_server_certificate,
)
from fl_opt.deployment.home import DeploymentError
from fl_opt.deployment.local import LocalDeployment, LocalSimulation

__all__ = [
    "Authority",
    "DeploymentError",
    "LocalDeployment",
    "LocalSimulation",
    "ServerCertificate",
    "make_authority",
    "make_node_key",
    "make_server_certificate",
]
