"""E-mail addresses."""

import unicodedata


def email_key(email: str) -> str:
    """An e-mail address as accounts are told apart by it: normalised (NFKC) and case-folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email.strip()).casefold())
