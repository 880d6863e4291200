"""The feed of changed credentials, and what is deleted after its time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier

from chassis.postgres import Connection

#: Role that reads every change.
FEED_ROLE = "auth_feed"
#: Role that deletes what has expired.
CLEANER_ROLE = "auth_cleaner"

#: Of one change, so that it fits into a message.
_MOST_IDS = 10_000

#: At once, within the database's time limits.
MOST_DELETED = 10_000
#: By table, the column that says when a row is expired.
EXPIRIES: Mapping[str, str] = {
    "changes": "created_at",
    "refresh_tokens": "expires_at",
    "mailed_tokens": "expires_at",
    "live_tokens": "expires_at",
    "invitations": "expires_at",
    "invitation_mails": "created_at",
    "leak_mails": "created_at",
    "keys": "ends_at",
    "sessions": "expires_at",
    "sign_ons": "expires_at",
    "sign_on_grants": "expires_at",
}


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

    async def delete_expired(self, connection: Connection, table: str) -> int:
        """Deletes the oldest rows of what expired long enough ago, an hour or more: the policies of the role say.

        How many there were: `MOST_DELETED` or more (of the same moment) where there may be others.
        """
        name, expiry = Identifier(table), Identifier(EXPIRIES[table])
        cursor = await connection.execute(
            SQL(
                "DELETE FROM {} WHERE {} <="
                " (SELECT max(expiry) FROM (SELECT {} AS expiry FROM {} ORDER BY 1 LIMIT {}) AS oldest)"
            ).format(name, expiry, expiry, name, MOST_DELETED)
        )
        return cursor.rowcount
