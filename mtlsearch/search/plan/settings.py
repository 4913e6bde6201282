"""The `search:` section of a space file: how to search, as against what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from mtlsearch.training.schema import Section


class ASHA(Section):
    """Asynchronous successive halving (Li et al. 2020) on the first objective, baselines exempt."""

    name: Literal["asha"] = "asha"
    grace_epochs: PositiveInt = 1
    reduction_factor: Annotated[float, Field(gt=1)] = 3.0


class Hyperband(ASHA):
    """ASHA in `brackets` that begin at later and later rungs (Li et al. 2018), on the first objective."""

    name: Literal["hyperband"] = "hyperband"  # type: ignore[assignment]
    brackets: Annotated[int, Field(ge=1, le=10)] = 3


class MultiObjectiveASHA(ASHA):
    """ASHA on all objectives: non-dominated fronts, spread over each (Schmucker et al. 2021)."""

    name: Literal["mo_asha"] = "mo_asha"  # type: ignore[assignment]


class Median(Section):
    """The median stopping rule (Golovin et al. 2017) on the first objective, baselines exempt."""

    name: Literal["median"] = "median"
    grace_epochs: PositiveInt = 1
    min_trials: PositiveInt = 3


class NoEarlyStopping(Section):
    name: Literal["none"] = "none"


class TPE(Section):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate with conditional groups."""

    name: Literal["tpe"] = "tpe"
    startup_trials: PositiveInt = 10


class GP(Section):
    """A Gaussian process with expected improvement, of the hypervolume where there are several objectives."""

    name: Literal["gp"] = "gp"
    startup_trials: PositiveInt = 10


class NSGA2(Section):
    """A genetic algorithm on the front (Deb et al. 2002)."""

    name: Literal["nsga2"] = "nsga2"
    population: Annotated[int, Field(ge=2)] = 20
    mutation: Annotated[float, Field(ge=0, le=1)] | None = None
    """probability for each parameter; None: one in a point, on average"""


class Sobol(Section):
    """A scrambled Sobol sequence over the numbers that every point has; options and what hangs on them are random."""

    name: Literal["sobol"] = "sobol"


class RandomSampler(Section):
    name: Literal["random"] = "random"


class GridSampler(Section):
    """Every combination of the space's options once, the last axis of the file changing fastest."""

    name: Literal["grid"] = "grid"


class Confirm(Section):
    """The `top` candidates and the baselines are trained again on fresh seeds, without early stopping."""

    top: PositiveInt = 1
    seeds: Annotated[int, Field(ge=0)] = 3


class Proxy(Section):
    """What the search says about the real training: winners, baselines and others again, at their full size."""

    full: Annotated[dict[str, Any], Field(min_length=1)]
    """keys of the run config as they are at full size, laid over each trial's config"""
    spread: Annotated[int, Field(ge=0)] = 4
    """configurations besides, at even steps through the ranks of the finished trials"""


class Constraints(Section):
    """What a configuration must satisfy to be tried. A baseline that does not is an error."""

    max_params: PositiveFloat | None = None
    max_macs: PositiveFloat | None = None
    """multiply–accumulates of one sample"""
    predicate: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    """module:function, called with the complete config as a dict; what it returns says whether the trial may be"""


class MeanRatio(Section):
    """The smallest geometric mean of the objectives' ratios to the better baseline's, of the Pareto front."""

    name: Literal["mean_ratio"] = "mean_ratio"


class FirstObjective(Section):
    """The best by the first objective."""

    name: Literal["first"] = "first"


class Within(Section):
    """The best by `then` of those whose first objective is within `percent` of the best: the smallest good model."""

    name: Literal["within"]
    then: str
    percent: PositiveFloat = 2.0


WinnerRule = Annotated[MeanRatio | FirstObjective | Within, Field(discriminator="name")]
SamplerConfig = Annotated[TPE | GP | NSGA2 | Sobol | RandomSampler | GridSampler, Field(discriminator="name")]
EarlyStoppingConfig = Annotated[
    ASHA | Hyperband | MultiObjectiveASHA | Median | NoEarlyStopping, Field(discriminator="name")
]


class SearchSettings(Section):
    """Everything of a space file beside the space itself."""

    objectives: Annotated[dict[str, Literal["min", "max"]], Field(min_length=1)]
    sampler: SamplerConfig = TPE()
    num_samples: PositiveInt = 16
    """trials; of a grid all of it, unless this is given"""
    time_budget_s: PositiveFloat | None = None
    """seconds of the search phase, over all resumptions; the confirmation comes after them"""
    gpu_hours: PositiveFloat | None = None
    """of all trials of the search together; a trial counts with its share of a GPU"""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    early_stopping: EarlyStoppingConfig = NoEarlyStopping()
    start_with: list[str] = []
    constraints: Constraints = Constraints()
    winner: WinnerRule = MeanRatio()
    """which of the Pareto front is called the best"""
    confirm: Confirm = Confirm()
    proxy: Proxy | None = None
    report: bool = True
    """write report.html and figures/ at the end"""

    @model_validator(mode="before")
    @classmethod
    def _names_stand_for_sections(cls, data: Any) -> Any:
        """`sampler: tpe` is short for `sampler: {name: tpe}`."""
        if isinstance(data, dict):
            named = ("sampler", "early_stopping", "winner")
            return {
                key: {"name": value} if key in named and isinstance(value, str) else value
                for key, value in data.items()
            }
        return data

    @model_validator(mode="after")
    def _baselines_fit(self) -> SearchSettings:
        if len(self.start_with) > self.num_samples:
            raise ValueError(
                f"start_with lists {len(self.start_with)} trials and num_samples allows {self.num_samples}"
            )
        return self

    @model_validator(mode="after")
    def _the_rule_names_an_objective(self) -> SearchSettings:
        if isinstance(self.winner, Within) and self.winner.then not in list(self.objectives)[1:]:
            others = ", ".join(list(self.objectives)[1:]) or "none"
            raise ValueError(f"winner.then must be an objective besides the first ({others}), got {self.winner.then!r}")
        return self

    @property
    def first_objective(self) -> tuple[str, str]:
        """The one that decides best epoch and early stopping."""
        return next(iter(self.objectives.items()))
