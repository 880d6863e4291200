"""The SQL of auth, one method a query, one class a group of tables.

Methods take the connection of a transaction that an operation opened, to which their rows are shown (`row_access.py`).
"""
