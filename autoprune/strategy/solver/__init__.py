"""The multiple-choice knapsack: one level for each unit, least damage within limits of bytes and
milliseconds.

`mckp` is the problem and the way in, `lagrange` follows prices along the convex hull, `knapsack` is the
exact dynamic program with dominance. Imports `space` alone. Begin with `mckp`.
"""
