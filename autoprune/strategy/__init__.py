"""Which candidate is tried next: numbers only, no model and no runtime.

`study` records trials and owns their `history`; a `proposer` chooses the next candidate from it. Ours (`aim`)
takes what the `solver` finds under two surrogate models (`damage_model`, `latency_model`) and ranks it by
the `acquisition` function; Optuna's samplers are in `samplers`, with the adapter. `promotion` says which
trials are trained and for how long, `schedule` hands out the work, `pareto` has the front and the points to
ship. The only package that touches Optuna; no torch. Imports `space` and `core`. Begin with `proposer`.
"""
