"""The stages of a search, in order: inputs, preparation, measured costs, baselines, trials, finalists.

`inputs` loads what the user named, `prepare` makes teacher, statistics and answers, `measured_costs` builds
the library and times it on workers, `opened` is what the stages after that share: the study, the pool and
the `ledger`, which keeps the run folder true. `baselines` and `trials` evaluate candidates, `answers` the
solver's for another budget, `lines` simple models to compare with, `finalists` times and scores the points to
ship. `driver` calls them in turn.
Imports everything below. Begin with `driver`.
"""
