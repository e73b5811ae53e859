"""Which candidate is tried next: numbers only, no model and no runtime.

`study` is the record of trials, `proposer` picks the candidate with the largest expected gain in
hypervolume from what `solver` finds, `promotion` says which trials are trained and for how long, `schedule`
hands out the work, `pareto` has the front and the points to ship. The only package that touches Optuna; no
torch. Imports `space` and `core`. Begin with `proposer`.
"""
