"""What may be tried, as plain data: levels, candidates, search spaces, budgets, costs and trials.

A unit is compressed as one; a `Level` says how hard, a ratio and a `Storage`; a `Candidate` has a level for
every unit. `space_file` reads `search_spaces/*.yaml`, `costs` knows what each level takes in bytes and
milliseconds and is predicted to harm, `trial` holds what was measured. Imports `core` alone and no torch.
Begin with `levels`.
"""
