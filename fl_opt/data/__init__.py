"""Datasets, and their division among clients."""

from fl_opt.data.examples import Examples, TaskInfo, TaskKind
from fl_opt.data.federated import FederatedDataset, load_dataset
from fl_opt.data.streamed import AnyExamples, ClientData, StreamedExamples, in_memory

__all__ = [
    "AnyExamples",
    "ClientData",
    "Examples",
    "FederatedDataset",
    "StreamedExamples",
    "TaskInfo",
    "TaskKind",
    "in_memory",
    "load_dataset",
]
