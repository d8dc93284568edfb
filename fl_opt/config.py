"""Typed settings, read from Flower's flat run config.

Flower hands an app one flat mapping (``{"uplink.codec": "topk(0.02) | ternary", ...}``).
:func:`load_settings` turns it into nested, validated, immutable settings and refuses what
it does not know. ``pyproject.toml`` holds the commented defaults; the defaults here are
the same, so that a missing key is never an error (a test compares the two). What a profile
decides is filled in on the way; see :mod:`fl_opt.profiles`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fl_opt.errors import ConfigError
from fl_opt.profiles import BY_PROFILE, PROFILE_KEYS, ProfileName, profile_values

ConfigValue: TypeAlias = bool | int | float | str

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Numbers = Annotated[str, Field(pattern=r"^( *\d+(-\d+)? *(, *\d+(-\d+)? *)*)?$")]
"""Whole numbers and ranges, such as ``2, 5-7``."""


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class _Section(BaseModel):
    model_config = ConfigDict(
        alias_generator=_kebab,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        strict=True,  # "3" is no number, 1 is no boolean; an integer is a valid float
        allow_inf_nan=False,
    )


class DataSettings(_Section):
    """How the dataset is found and divided among clients."""

    partition: str = "dirichlet(0.5)"
    folder: str = ""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    max_examples: Count = 0
    cache_folder: str = ""
    cache_limit_mb: Count = 2000
    loading: Literal["auto", "resident", "stream"] = "auto"
    resident_limit_mb: PositiveInt = 1000
    loader_workers: Count = 0


class TrainSettings(_Section):
    """Local training on a client."""

    local_epochs: PositiveInt = 3
    local_steps: Count = 0
    batch_size: PositiveInt | Literal["auto"] = 32
    micro_batch_size: Count = 0
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    weight_decay: NonNegative = 0.0
    clip_norm: NonNegative = 1.0
    proximal_mu: NonNegative = 0.0
    device: str = "auto"
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    channels_last: bool = False
    compile: bool = False
    checkpoint_modules: str = ""
    memory_limit_mb: Count = 0


class UplinkSettings(_Section):
    """What a client sends to the server."""

    codec: str = "topk(0.02) | ternary"
    feedback: str = "residual"


class DownlinkSettings(_Section):
    """What the server sends to a client, and what both remember of it."""

    mode: Literal["full", "shared", "per-client", "auto"] = "auto"
    codec: str = "ecsq(0.5)"
    first_contact: Literal["seed", "snapshot"] = "seed"
    catch_up: Literal["sum", "chain"] = "sum"
    memory_mb: PositiveInt = 1000


class RoundSettings(_Section):
    """Who takes part in a round, and what makes it count."""

    clients: Count = 0
    over_selection: Annotated[float, Field(ge=1.0, le=100.0)] = 1.0
    min_nodes: PositiveInt = 2
    min_replies: PositiveInt = 1
    late_replies: Literal["accept", "refuse"] = "accept"
    staleness: str = "polynomial(0.5)"
    max_update_norm: str = "auto"
    ttl: NonNegative = 0.0
    timeout: Positive = 3600.0
    wait_for_nodes: NonNegative = 120.0


class EvaluateSettings(_Section):
    """When the model is evaluated, on the server and by clients (0: never)."""

    central_every: Count = 1
    federated_every: Count = 10
    mode: Literal["piggyback", "message"] = "piggyback"
    clients: Count = 0
    target_accuracy: Fraction = 0.9


class SimulationSettings(_Section):
    """The virtual engine's clients: their number, links and speed."""

    num_supernodes: PositiveInt = 10
    workers: Count = 1
    uplink_mbps: Positive = 10.0
    downlink_mbps: Positive = 50.0
    latency_ms: NonNegative = 20.0
    samples_per_second: Positive = 2000.0
    spread: NonNegative = 0.0
    links: str = "steady"


class FaultSettings(_Section):
    """What goes wrong in the virtual engine."""

    lose_down: Fraction = 0.0
    lose_up: Fraction = 0.0
    duplicate_down: Fraction = 0.0
    duplicate_up: Fraction = 0.0
    delay: Fraction = 0.0
    delay_seconds: Positive = 10.0
    restart: Fraction = 0.0
    forget: Fraction = 0.0
    slow: Fraction = 0.0
    slow_factor: Annotated[float, Field(ge=1.0)] = 10.0
    corrupt_down: Fraction = 0.0
    corrupt_up: Fraction = 0.0


class CheckpointSettings(_Section):
    """When all that a run needs to go on is written to disk."""

    every: Count = 0
    folder: str = ""


class OutputSettings(_Section):
    """Where the run record goes."""

    folder: str = "runs"
    name: str = ""
    save_model: bool = False
    tensorboard: bool = False


class ProfilingSettings(_Section):
    """What is measured beyond the parts of each round."""

    spans: bool = False
    torch_rounds: Numbers = ""
    torch_clients: Numbers = ""
    folder: str = "profiles"


class Settings(_Section):
    """All settings of a run; see ``pyproject.toml`` for what each one does."""

    profile: ProfileName = "balanced"
    dataset: str = "digits"
    model: str = "mlp"
    strategy: str = "fedavg"
    selection: str = "uniform"
    balance: str = "none"
    pruning: str = "none"
    submodels: str = "none"
    server_optimizer: str = "sgd"
    server_schedule: str = "constant"
    server_average: str = "none"
    num_server_rounds: PositiveInt = 30
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    resume: bool = False
    exact_arrays: str = "*running_mean, *running_var, *num_batches_tracked"
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    uplink: UplinkSettings = UplinkSettings()
    downlink: DownlinkSettings = DownlinkSettings()
    round: RoundSettings = RoundSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    simulation: SimulationSettings = SimulationSettings()
    faults: FaultSettings = FaultSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    output: OutputSettings = OutputSettings()
    profiling: ProfilingSettings = ProfilingSettings()

    @property
    def exact_patterns(self) -> tuple[str, ...]:
        """Patterns of ``exact-arrays``, as :class:`~fl_opt.params.ParamSpec` takes them."""
        return tuple(p.strip() for p in self.exact_arrays.split(",") if p.strip())

    @property
    def as_profile(self) -> bool:
        """Whether all that the profile decides is as it has it."""
        own = dict(flat_settings(self))
        decided = profile_values(self.profile, sampled=self.round.clients > 0)
        return all(own[key] == value for key, value in decided.items())


def load_settings(run_config: Mapping[str, ConfigValue]) -> Settings:
    """Validate Flower's flat run config.

    Parameters
    ----------
    run_config : mapping of str to bool, int, float or str
        Keys are kebab-case, nested ones joined by dots. Missing keys take their default.

    Returns
    -------
    Settings

    Raises
    ------
    ConfigError
        For an unknown key (the nearest known one is suggested) or a value out of range.
    """
    known = list(setting_names())
    nested: dict[str, Any] = {}
    for key, value in run_config.items():
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}{_suggest(key, known)}")
        section, _, name = key.rpartition(".")
        if value != BY_PROFILE or key not in PROFILE_KEYS:
            target = nested.setdefault(section, {}) if section else nested
            target[name] = value
    try:
        return _by_profile(Settings.model_validate(nested))
    except ValidationError as error:
        raise ConfigError(_explain(error)) from None


def _by_profile(settings: Settings) -> Settings:
    """Fill in what was not given, as the profile has it."""
    sampled = settings.round.clients > 0
    for key, value in profile_values(settings.profile, sampled=sampled).items():
        section, _, name = key.replace("-", "_").rpartition(".")
        part = getattr(settings, section) if section else settings
        if name not in part.model_fields_set:
            part = part.model_copy(update={name: value})
            settings = settings.model_copy(update={section: part}) if section else part
    return settings


def setting_names() -> Iterator[str]:
    """All keys that :func:`load_settings` accepts, in the order of their definition."""
    for key, _ in flat_settings(Settings()):
        yield key


def flat_settings(settings: Settings) -> Iterator[tuple[str, ConfigValue]]:
    """Pairs of key and value, as Flower's flat run config has them."""
    for key, value in settings.model_dump(by_alias=True).items():
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", item) for name, item in value.items())
        else:
            yield key, value


def _suggest(key: str, known: list[str]) -> str:
    matches = _nearest(key.replace("_", "-"), known)
    if not matches:
        return "; see [tool.flwr.app.config] in pyproject.toml for all settings"
    return f"; did you mean {' or '.join(map(repr, matches))}?"


def _nearest(key: str, known: list[str]) -> list[str]:
    """Return the known names that ``key`` most likely stands for, likeliest slip first."""

    def bare(name: str) -> str:
        return name.rpartition(".")[2]

    section = key.rpartition(".")[0]
    if section in known:  # "model.name"
        return [section]
    # A section forgotten or wrong: "codec", "train.codec", "uplinks.codec".
    if same := [name for name in known if bare(name) == bare(key)]:
        return difflib.get_close_matches(key, same, n=1, cutoff=0.85) or same
    if inside := [name for name in known if name.startswith(f"{key}.")]:  # "evaluate"
        return inside
    words = set(bare(key).split("-"))
    if longer := [name for name in known if words <= set(bare(name).split("-"))]:  # "rounds"
        return longer
    if close := difflib.get_close_matches(key, known, n=1):
        return close
    near = difflib.get_close_matches(bare(key), map(bare, known), n=1)
    return [name for name in known if bare(name) in near]


def _explain(error: ValidationError) -> str:
    known = set(setting_names())
    first, *others = error.errors()

    def key(details: Mapping[str, Any]) -> str:
        # Behind its name comes which of several kinds of value was tried.
        parts = [str(part) for part in details["loc"]]
        names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        return next((name for name in names if name in known), ".".join(parts))

    name = key(first)
    reasons = [_reason(one) for one in (first, *others) if key(one) == name]
    return f"setting {name!r} = {first['input']!r}: {' or '.join(reasons)}"


def _reason(details: Mapping[str, Any]) -> str:
    message: str = details["msg"]
    return message.removeprefix("Input ").removeprefix("Value error, ")
