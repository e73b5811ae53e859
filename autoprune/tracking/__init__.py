"""A search followed in the trackers that people already use: MLflow, TensorBoard, Weights & Biases.

May import `run`, `space`, `tasks` and `core`. Begin with `tracker` (what each of them is asked for), then
`tracking` (the driver's side) and `process` (where a tracker works, so that none can end or slow a search).
"""
