"""Sections of the page: the verdict, tables, rungs, sensitivity and latency, as plain data for the
template.
"""
