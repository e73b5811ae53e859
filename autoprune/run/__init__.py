"""A run on disk: what was asked, its folder and lock, the state, and the record `front.json`.

`folder` owns the folder, `config` what a search was asked for, `run_record` what `run.json` says, `standing`
what its trials come to; `front_record` writes `front.json` and `front_schema` reads it. No torch, so `status`
and `report` answer at once. Imports `strategy`, `space`, `tasks` and `core`. Begin with `folder`.
"""
