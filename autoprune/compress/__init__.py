"""One unit's weights at one level: tensors in, tensors out.

`removal` decides which heads or neurons go and refits what stays, `rounding` turns floats into
integers with compensated error, `integers` holds them, `packing` lays them out in bytes.
"""
