"""The reference client: plain local training with torch.

It knows nothing of compression, nor of how its arrays travel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from flwr.client import NumPyClient
from numpy.typing import NDArray
from torch import nn

from fl_opt.cache import cache_folder
from fl_opt.config import Settings
from fl_opt.data import ClientData, TaskInfo, load_dataset
from fl_opt.errors import ModelError
from fl_opt.models import build_model
from fl_opt.models.width import is_narrower, narrowed, shapes_of
from fl_opt.profiling.torch_trace import torch_trace
from fl_opt.seeds import derive_seed
from fl_opt.spans import span
from fl_opt.training import (
    evaluate,
    find_device,
    get_arrays,
    set_arrays,
    train,
)
from fl_opt.training.plan import find_plan
from fl_opt.training.pruning import pruned_mask

Scalar = bool | bytes | float | int | str

_ASKED: Final = {"local-steps": "local_steps", "proximal-mu": "proximal_mu"}
"""Settings that a server may change from round to round, by the name in its config."""


class TorchClient(NumPyClient):
    """A client that trains a torch model on its own part of the data.

    Parameters
    ----------
    model : torch.nn.Module
        On the device to train on. Clients that take turns may share one: each call begins
        by copying the parameters it is given into it.
    data : ClientData
    settings : Settings
        ``seed`` and the section ``train`` are used.
    partition_id : int
        Which client this is; its random draws depend on it and on the round.
    """

    def __init__(
        self, model: nn.Module, data: ClientData, settings: Settings, partition_id: int
    ) -> None:
        self._model = model
        self._data = data
        self._settings = settings
        self._partition_id = partition_id

    def get_parameters(self, config: dict[str, Scalar]) -> list[NDArray[Any]]:
        """Return the model's arrays, in the order of its ``state_dict``."""
        return list(get_arrays(self._model).values())

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Scalar]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Scalar]]:
        """Train on the client's examples.

        Parameters
        ----------
        parameters : list of ndarray
            The global model, in the order of :meth:`get_parameters`, or a narrower one.
        config : dict
            ``server-round``: the round, from 1. ``local-steps`` and ``proximal-mu``, if they
            are there, take the place of the settings' own. With ``pruned`` weights that are
            zero stay zero.

        Returns
        -------
        list of ndarray
            The trained model.
        int
            Number of examples trained on.
        dict
            ``num-samples`` (examples processed, each as often as it was used),
            ``num-steps`` and ``train-loss``.

        Raises
        ------
        ModelError
            If the parameters are not those of the model.
        """
        with span("load"):
            model = self._load(parameters)
        mask = pruned_mask(model) if config.get("pruned") else None
        server_round = int(config["server-round"])
        seed = derive_seed(self._settings.seed, "train", self._partition_id, server_round)
        asked = {key: config[name] for name, key in _ASKED.items() if name in config}
        settings = self._settings.train.model_copy(update=asked)
        examples, loading = self._data.train, self._settings.data
        folder = cache_folder(loading.cache_folder)
        plan = find_plan(model, examples, settings, folder=folder)
        with span("steps"), torch_trace(self._settings, server_round, self._partition_id):
            result = train(
                model,
                examples,
                settings,
                seed=seed,
                mask=mask,
                plan=plan,
                loader_workers=loading.loader_workers,
            )
        metrics: dict[str, Scalar] = {
            "num-samples": float(result.num_samples),
            "num-steps": float(result.num_steps),
            "train-loss": result.loss,
        }
        return list(get_arrays(model).values()), result.num_examples, metrics

    def evaluate(
        self,
        parameters: list[NDArray[Any]],
        config: dict[str, Scalar],
    ) -> tuple[float, int, dict[str, Scalar]]:
        """Evaluate on the client's validation examples.

        Returns
        -------
        float
            Loss; 0 where the client has no validation examples.
        int
            Number of validation examples.
        dict
            ``accuracy``.

        Raises
        ------
        ModelError
            If the parameters are not those of the model.
        """
        model = self._load(parameters)
        result = evaluate(model, self._data.validation)
        return result.loss, result.num_examples, {"accuracy": result.accuracy}

    def _load(self, parameters: list[NDArray[Any]]) -> nn.Module:
        """Return the model with these parameters: a narrower one, if they are of one."""
        model, shapes = self._model, tuple(array.shape for array in parameters)
        if len(shapes) != len(model.state_dict()):
            raise ModelError(
                f"received {len(shapes)} arrays, the model has {len(model.state_dict())}"
            )
        if is_narrower(shapes, shapes_of(model)):
            model = narrowed(model, shapes)
        set_arrays(model, dict(zip(model.state_dict(), parameters, strict=True)))
        return model


def build_torch_client(
    settings: Settings, partition_id: int, num_partitions: int
) -> TorchClient:
    """Build the client of one partition.

    Clients built in one process share the dataset and one model, so they must not train at
    the same time: run them one after another, or in processes of their own.

    Parameters
    ----------
    settings : Settings
    partition_id : int
        In [0, num_partitions).
    num_partitions : int
        Into how many parts the dataset is divided.

    Raises
    ------
    ConfigError, DataError, ModelError
        If the dataset, the model or the device is not known or unusable as asked.
    """
    dataset = load_dataset(settings, num_partitions)
    model = _shared_model(settings.model, dataset.info, settings.train.device, settings.seed)
    return TorchClient(model, dataset.client(partition_id), settings, partition_id)


def first_arrays(settings: Settings, num_partitions: int) -> list[NDArray[Any]]:
    """Build the arrays of the untrained model, as the server does from the same settings.

    Parameters and errors are those of :func:`build_torch_client`.
    """
    info = load_dataset(settings, num_partitions).info
    model = build_model(settings.model, info, settings.seed)
    return list(get_arrays(model).values())


@lru_cache(maxsize=1)
def _shared_model(name: str, info: TaskInfo, device: str, seed: int) -> nn.Module:
    return build_model(name, info, seed).to(find_device(device))
