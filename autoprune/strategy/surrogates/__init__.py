"""Surrogate models: what finished trials teach about predicted divergence and predicted milliseconds.

Both are Bayesian linear regressions on features of a candidate's levels. Imports `space` and the solver.
Begin with `damage_model`.
"""
