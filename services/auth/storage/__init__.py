"""The SQL of auth, one method a query, one class a group of tables.

Methods take the connection of a transaction that an operation opened, with the doors (`migrations/0001`) it needs.
"""
