"""The feed of changed credentials, and what is deleted after its time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from chassis.postgres import Connection

#: Role that reads every change.
FEED_ROLE = "auth_feed"
#: Role that deletes what has expired.
CLEANER_ROLE = "auth_cleaner"

#: Of one change, so that it fits into a message.
_MOST_IDS = 10_000


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step of the feed."""

    revision: int
    #: Ids of keys, sessions, users, projects and tenants whose verdicts are void.
    changed_ids: tuple[str, ...]


class FeedStorage:
    """`announce` needs the setting `user_id` or `tenant_id`; the others a role."""

    async def announce(self, connection: Connection, changed_ids: Sequence[str]) -> None:
        """Steps the revision, several times for very many ids.

        The last step of a transaction: others that announce wait for its end.
        """
        for start in range(0, len(changed_ids), _MOST_IDS):
            await connection.execute(
                "WITH stepped AS (UPDATE feed SET revision = revision + 1 RETURNING revision)"
                " INSERT INTO changes (revision, changed_ids) SELECT revision, %s FROM stepped",
                (list(changed_ids[start : start + _MOST_IDS]),),
            )

    async def read(self, connection: Connection, after_revision: int, most: int) -> tuple[int, Sequence[Change]]:
        """The newest revision, and the newest `most` changes after the given one, in their order."""
        cursor = await connection.execute(
            "SELECT feed.revision AS newest, changes.revision, changes.changed_ids"
            " FROM feed LEFT JOIN changes ON changes.revision > greatest(%s, feed.revision - %s)"
            " ORDER BY changes.revision",
            (after_revision, most),
        )
        rows = await cursor.fetchall()
        changes = [
            Change(revision=row["revision"], changed_ids=tuple(row["changed_ids"]))
            for row in rows
            if row["revision"] is not None
        ]
        return rows[0]["newest"], changes

    async def delete_expired(self, connection: Connection) -> dict[str, int]:
        """Deletes what expired long enough ago, an hour or more: the policies of the role say. Rows by table."""
        statements: dict[str, LiteralString] = {
            "changes": "DELETE FROM changes",
            "refresh_tokens": "DELETE FROM refresh_tokens",
            "mailed_tokens": "DELETE FROM mailed_tokens",
            "live_tokens": "DELETE FROM live_tokens",
            "invitations": "DELETE FROM invitations",
            "invitation_mails": "DELETE FROM invitation_mails",
            "leak_mails": "DELETE FROM leak_mails",
            "keys": "DELETE FROM keys WHERE ends_at < now()",
            "sessions": "DELETE FROM sessions",
            "sign_ons": "DELETE FROM sign_ons",
            "sign_on_grants": "DELETE FROM sign_on_grants",
        }
        return {table: (await connection.execute(delete)).rowcount for table, delete in statements.items()}
