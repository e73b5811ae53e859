"""From a trial to a folder to ship: written, checked in a fresh process, described, loaded again.

`from_run` is the way from a run; `ensemble` and `family` are those of several models of its front, which
`averaged` and `family_model` answer for; `run_trials` is what they have in common. `artifact` writes and
loads a folder (`autoprune.load`), `export_record` is what its `autoprune.json` says, `validate` measures it
again, `checks` judges, `card` describes. Imports everything below. Begin with `from_run`.
"""
