"""Where rows come from: tables of csv, json, parquet, text and pictures, folders, the hub, functions.

`source.DataSource` says what is read, and `splits.read_splits` is the one way in: it finds the tables,
chooses the columns, reads labels and parts the rows into train, validation and test. Imports `core` and the
kinds of task. Begin with `splits`.
"""
