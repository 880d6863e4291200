"""E-mail addresses."""

import unicodedata

from chassis.errors import Invalid

#: Characters that an address has at most (RFC 5321, erratum 1690).
MOST_EMAIL_CHARACTERS = 254


def email_key(email: str) -> str:
    """An e-mail address as accounts are told apart by it: normalised (NFKC) and case-folded; the domain in lower case
    instead, since folding makes one of domains that have different owners (IDNA 2008: straße.de, strasse.de).

    Raises Invalid where it is too long to be one: the time that normalising takes grows with the square of the length.
    """
    email = email.strip()
    if len(email) > MOST_EMAIL_CHARACTERS:
        raise Invalid.fields({"email": f"must have at most {MOST_EMAIL_CHARACTERS} characters"})
    local, at, domain = unicodedata.normalize("NFKC", email).rpartition("@")
    return unicodedata.normalize("NFKC", local.casefold() + at + domain.lower())
