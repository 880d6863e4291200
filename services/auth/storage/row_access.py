"""Shows a transaction more rows: row-level security goes by its settings, which `migrations/0001` calls doors."""

from chassis.postgres import Connection


async def show_rows(connection: Connection, name: str, value: str) -> None:
    """By one more setting until the transaction ends. Call it once it is known that the caller may see them."""
    await connection.execute("SELECT set_config(%s, %s, true)", (f"app.{name}", value))
