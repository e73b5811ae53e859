"""The stages of a search, in order: inputs, preparation, measured costs, the driver, finalists.

`inputs` loads what the user named, `prepare` makes teacher, statistics and answers, `measured_costs` builds
the library and times it on workers, `driver` runs baselines and trials, `finalists` times and scores the
points to ship, `ledger` keeps the run folder true. Imports everything below. Begin with `driver`.
"""
