"""What a model is asked, and how well it answers: kinds of task, metrics, and rows as arrays.

`tasks.data` reads what a user names (files, folders, hub data sets, functions) into columns, `encoding`
makes arrays of them, and a `Task` holds three splits of these and makes batches. NumPy only: no torch.
Imports `core`. Begin with `task`.
"""
