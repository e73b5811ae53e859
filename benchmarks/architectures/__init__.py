"""Which architectures go through the whole pipe, on random weights?"""
