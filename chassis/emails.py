"""E-mail addresses."""

import unicodedata

from chassis.errors import Invalid

#: Characters that an address has at most (RFC 5321, erratum 1690).
MOST_EMAIL_CHARACTERS = 254


def email_key(email: str) -> str:
    """An e-mail address as accounts are told apart by it: normalised (NFKC) and case-folded.

    Raises Invalid where it is too long to be one: the time that normalising takes grows with the square of the length.
    """
    email = email.strip()
    if len(email) > MOST_EMAIL_CHARACTERS:
        raise Invalid.fields({"email": f"must have at most {MOST_EMAIL_CHARACTERS} characters"})
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
