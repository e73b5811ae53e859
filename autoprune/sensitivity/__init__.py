"""How much each variant harms: predicted divergence from the teacher, from exact gradients.

`fisher_scores` is the way in; `block_replay` runs a model block by block, `recorder` catches what passes a
layer, `weight_changes` is what the variants of a unit change in its weights. Imports `compress`, `models`
and what is below. Begin with `fisher_scores`.
"""
