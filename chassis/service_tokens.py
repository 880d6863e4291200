"""The secret that all services of an installation share, with an overlap when it is changed."""

import hmac
from collections.abc import Callable


class ServiceToken:
    """One token, or several with white space between them: the first is sent, each of them is accepted."""

    def __init__(self, text: str | Callable[[], str]) -> None:
        """`text`: a function where it may change."""
        self._text = text

    def _tokens(self) -> list[str]:
        return (self._text if isinstance(self._text, str) else self._text()).split()

    @property
    def sent(self) -> str:
        return next(iter(self._tokens()), "")

    def accepts(self, token: str) -> bool:
        """In a time that says nothing of the tokens."""
        same = [hmac.compare_digest(token.encode(), each.encode()) for each in self._tokens()]
        return any(same)
