"""Temporary tables that rows are copied into, to be merged from there."""


def made(name: str, table: str, columns: str) -> str:
    """The statement that makes one, once a session, with these columns of a table.

    It has no others: the schema may be that of a newer version, with columns that this code has no values for.
    """
    kept = f"SELECT {columns} FROM ingest.{table}"  # noqa: S608 - constants # nosec B608
    return f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ON COMMIT DELETE ROWS AS {kept} WITH NO DATA"
