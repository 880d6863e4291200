"""Pages of lists: keyset pagination by id, with tokens that clients must not look into."""

import base64
import binascii

from chassis.errors import Invalid
from chassis.ids import is_uuid

DEFAULT_PAGE_SIZE = 50
MOST_PAGE_SIZE = 500

#: Sorts before every other id.
_FIRST_ID = "00000000-0000-0000-0000-000000000000"


def page_size(requested: int) -> int:
    """How many items a page holds; 0 asks for the default. Raises Invalid out of 0…500."""
    if not 0 <= requested <= MOST_PAGE_SIZE:
        raise Invalid.fields({"pageSize": f"must be from 1 to {MOST_PAGE_SIZE}"})
    return requested or DEFAULT_PAGE_SIZE


def token_after(last_id: str) -> str:
    """The token of the page that follows the item of this id."""
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def id_before(page_token: str) -> str:
    """The id that the page's items come after; an empty token asks for the first page. Raises Invalid."""
    if not page_token:
        return _FIRST_ID
    try:
        padded = page_token + "=" * (-len(page_token) % 4)
        last_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        last_id = ""
    if not is_uuid(last_id):
        raise Invalid.fields({"pageToken": "is not a token that a list has answered"})
    return last_id
