"""Datasets, and their division among clients."""

from fl_opt.data.examples import ClientData, Examples, TaskInfo, TaskKind
from fl_opt.data.federated import FederatedDataset, load_dataset

__all__ = [
    "ClientData",
    "Examples",
    "FederatedDataset",
    "TaskInfo",
    "TaskKind",
    "load_dataset",
]
