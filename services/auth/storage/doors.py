"""Opens one more door of row-level security within a transaction (`migrations/0001` lists them)."""

from chassis.postgres import Connection


async def open_door(connection: Connection, name: str, value: str) -> None:
    """Shows the rows behind it until the transaction ends. Call it once it is known that the caller may see them."""
    await connection.execute("SELECT set_config(%s, %s, true)", (f"app.{name}", value))
