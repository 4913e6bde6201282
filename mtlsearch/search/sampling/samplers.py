"""Optuna's samplers by the names and options of a search's settings."""

from __future__ import annotations

import logging
import warnings

import optuna

from mtlsearch.search.plan.settings import GP, NSGA2, TPE, SearchSettings, Sobol
from mtlsearch.training.seeding import derive_seed

#: trials that a sampler works with at most, where its work for a point grows with them: TPE's in proportion to their
#: number, a Gaussian process's with its cube
_REMEMBERED = {TPE: 1_000, GP: 300}


def remembered(settings: SearchSettings) -> int | None:
    """How many trials the sampler of a search is to know at most; None: all."""
    return _REMEMBERED.get(type(settings.sampler))


def make_sampler(settings: SearchSettings, drawn: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler of a search that has `drawn` trials already, from whose draws its own are independent.

    Of a grid, whose points are all decided beforehand, it is one that is never asked.
    """
    with warnings.catch_warnings():
        # some are marked experimental; conditional spaces need TPE's multivariate and group
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _make(settings, derive_seed(settings.seed, "sampler", drawn) % 2**32 if drawn else settings.seed)


def _make(settings: SearchSettings, seed: int) -> optuna.samplers.BaseSampler:
    chosen = settings.sampler
    if isinstance(chosen, TPE):
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=chosen.startup_trials
        )
    if isinstance(chosen, GP):
        # at its first point it would tell whoever searches that greenlet makes it faster
        logging.getLogger("optuna._gp.batched_lbfgsb").setLevel(logging.ERROR)
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=chosen.startup_trials, warn_independent_sampling=False
        )
    if isinstance(chosen, NSGA2):
        return optuna.samplers.NSGAIISampler(
            seed=seed, population_size=chosen.population, mutation_prob=chosen.mutation
        )
    if isinstance(chosen, Sobol):
        return optuna.samplers.QMCSampler(
            qmc_type="sobol", scramble=True, seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False
        )
    return optuna.samplers.RandomSampler(seed=seed)
