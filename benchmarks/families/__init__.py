"""Is it one pipeline for all families of models, on real weights and data?"""
