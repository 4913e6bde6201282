"""Which weights stay on disk: of running trials the best epoch's and the last, of ended ones those of the Pareto front
and of the best few behind it."""

from __future__ import annotations

from mtlsearch.search.judging.winner import candidates, pareto_front
from mtlsearch.search.study.study import OWED, Study, TrialState
from mtlsearch.training.checkpoint import BEST

#: beside the front, so many more than are confirmed: a new trial may change the order of those behind it
_MARGIN = 5


class Weights:
    """Observes a study and removes the weights that nobody will ask for; those of baselines stay."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._settings = study.plan.settings
        ended = [trial for trial in study.of_phase("search") if trial.status != "running"]
        self._kept = [trial for trial in ended if self._path_exists(trial)]

    def epoch_ended(self, trial: TrialState) -> None:
        """A running trial keeps what it has."""

    def trial_ended(self, trial: TrialState) -> None:
        if trial.phase != "search" or trial.status != "finished":
            # confirmation has scored its weights by now, and a trial that did not run to its end cannot win
            self._remove(trial)
            return
        self._kept.append(trial)
        baselines = [one for one in self._study.of_phase("search") if one.label]
        if any(one.status == "running" for one in baselines):
            return  # the order by ratios to the better baseline is not known yet
        compared = [*baselines, *(one for one in self._kept if not one.label)]
        ranked = candidates(compared, self._settings.objectives, self._settings.winner)
        # what leaves the front never comes back to it, and by every rule the winner is on it
        front = set(pareto_front({one.number: one.best for one in ranked}, self._settings.objectives))
        sampled = [one for one in ranked if not one.label]
        most = self._settings.confirm.top + _MARGIN
        self._kept = [one for place, one in enumerate(sampled) if place < most or one.number in front]
        stay = {one.number for one in self._kept}
        for one in sampled:
            if one.number not in stay:
                self._remove(one)

    def _path_exists(self, trial: TrialState) -> bool:
        return (self._study.trial_folder(trial.number) / BEST).exists()

    def _remove(self, trial: TrialState) -> None:
        if not (trial.phase == "search" and trial.label):
            folder = self._study.trial_folder(trial.number)
            (folder / BEST).unlink(missing_ok=True)
            if trial.phase == "search":  # its weights are all that it leaves
                (folder / OWED).unlink(missing_ok=True)
