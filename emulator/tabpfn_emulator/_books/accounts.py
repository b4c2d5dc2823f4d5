"""Accounts and their tokens: several per account, so that keys can rotate, each for good or for a time."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from tabpfn_emulator._books.identity import DERIVED, account_of, digest_of
from tabpfn_emulator._state.database import Database


class _Token(NamedTuple):
    account: str | None
    """None once it is revoked."""
    expires_at: float
    """Epoch seconds."""


class Accounts:
    """Which token opens which account.

    A token that was added to a named account opens that one. Any other token opens an account of its own
    (`account_of`), where that is allowed: for the tokens in `only`, or for every token where neither `only` nor
    `named` restricts them.

    Args:
        database: Where accounts and digests of tokens are kept.
        only: Tokens to accept, each opening an account of its own.
        named: Name and token of accounts; a name may come again, with another token. They hold for this run.

    Raises:
        ValueError: When a token would open two accounts, or a name is not usable: give other ones.
    """

    def __init__(self, database: Database, only: Sequence[str] = (), named: Sequence[tuple[str, str]] = ()) -> None:
        self._database = database
        self._open = not only and not named
        if any(DERIVED.fullmatch(name) for name, _ in named):
            raise ValueError("an account is not named as those that tokens open by themselves")
        self._only = {digest_of(token) for token in only}
        with database.transaction():
            # A revoked token stays revoked and a closed account closed, whatever the next start names.
            database.execute("DELETE FROM tokens WHERE from_start AND NOT revoked")
            rows = database.rows("SELECT digest, account, revoked, expires_at FROM tokens")
            self._tokens: dict[str, _Token] = {
                digest: _Token(None if gone else name, math.inf if end is None else end)
                for digest, name, gone, end in rows
            }
            self._counts = Counter(token.account for token in self._tokens.values() if token.account is not None)
            rows = database.rows("SELECT name, email_verified, closed FROM accounts")
            self._verified: dict[str, bool] = {name: bool(verified) for name, verified, _ in rows}
            self._closed: set[str] = {name for name, _, closed in rows if closed}
        for name, token in named:
            if self._owner(token, "") not in {None, name}:
                self.change(name, add_tokens=(token,), from_start=True)

    def of_token(self, token: str) -> str | None:
        """Return the account that a token opens.

        Args:
            token: The bearer token.

        Returns:
            None for one that is revoked, expired, unknown, or of a closed account.
        """
        digest = digest_of(token)
        if digest in self._tokens:
            name, expires_at = self._tokens[digest]
            if time.time() >= expires_at:
                return None
        else:
            name = account_of(token) if self._open or digest in self._only else None
        return None if name in self._closed else name

    @property
    def restricted(self) -> bool:
        """Whether the start has named the tokens and accounts to accept."""
        return not self._open

    def is_known(self, name: str) -> bool:
        """Return whether an account was named, changed or closed."""
        return name in self._verified

    def is_closed(self, name: str) -> bool:
        """Return whether an account was closed."""
        return name in self._closed

    def email_verified(self, name: str) -> bool:
        """Return whether an account's e-mail address is verified; only registered accounts begin without."""
        return self._verified.get(name, True)

    def change(
        self,
        name: str,
        *,
        add_tokens: Iterable[str] = (),
        revoke_tokens: Iterable[str] = (),
        expires_in: float | None = None,
        email_verified: bool | None = None,
        from_start: bool = False,
    ) -> dict[str, Any]:
        """Open or change an account.

        Args:
            name: Its name, without spaces; an account that a token has opened by itself goes by its `account_of`.
            add_tokens: Tokens that open it from now on, earlier revoked and expired ones too.
            revoke_tokens: Tokens that open nothing any more.
            expires_in: Seconds from now after which the added tokens open nothing any more, 0 or more; None means
                that they do not expire.
            email_verified: False lets the API answer 403; None leaves it as it is, True for a new account.
            from_start: Whether the tokens hold for this run only.

        Returns:
            `name`, `email_verified`, and `tokens`, the number of tokens that were added and not revoked,
            expired ones included.

        Raises:
            ValueError: When a token is empty or is another account's, or the name is empty or has spaces: give other
                ones; when the time is no number of seconds or no token is added: leave `expires_in` out. Nothing was
                changed.
        """
        added, revoked = list(add_tokens), list(revoke_tokens)
        if not name or any(character.isspace() for character in name):
            raise ValueError("an account needs a name without spaces")
        for token in (*added, *revoked):
            if not token or token != token.strip():
                raise ValueError("a token is not empty and has no space around it")
            if self._owner(token, name) not in {None, name}:
                raise ValueError("the token belongs to another account")
        if expires_in is not None and not (added and 0 <= expires_in < math.inf):
            raise ValueError("expires_in is the seconds, 0 or more, that the tokens in add_tokens hold")
        expires_at = math.inf if expires_in is None else time.time() + expires_in
        verified = self.email_verified(name) if email_verified is None else email_verified
        with self._database.transaction():
            self._write_account(name, verified=verified, closed=from_start and name in self._closed)
            for token in added:
                self._write_token(token, name, _Token(name, expires_at), from_start=from_start)
            for token in revoked:
                self._write_token(token, name, _Token(None, math.inf), from_start=from_start)
        return {"name": name, "email_verified": verified, "tokens": self._counts[name]}

    def close(self, name: str) -> None:
        """Close an account: none of its tokens opens it again, until `change` does."""
        self._write_account(name, verified=self.email_verified(name), closed=True)

    def all(self) -> list[dict[str, Any]]:
        """Return the accounts that were named, changed or closed."""
        return [
            {
                "name": name,
                "email_verified": verified,
                "closed": name in self._closed,
                "tokens": self._counts[name],
            }
            for name, verified in self._verified.items()
        ]

    def _write_account(self, name: str, *, verified: bool, closed: bool) -> None:
        self._database.execute("INSERT OR REPLACE INTO accounts VALUES (?, ?, ?)", (name, verified, closed))
        self._database.after_commit(partial(self._remember_account, name, verified=verified, closed=closed))

    def _remember_account(self, name: str, *, verified: bool, closed: bool) -> None:
        self._verified[name] = verified
        (self._closed.add if closed else self._closed.discard)(name)

    def _owner(self, token: str, otherwise: str) -> str | None:
        known = self._tokens.get(digest_of(token))
        return otherwise if known is None else known.account

    def _write_token(self, token: str, name: str, now: _Token, *, from_start: bool) -> None:
        digest = digest_of(token)
        self._database.execute(
            "INSERT OR REPLACE INTO tokens (digest, account, from_start, revoked, expires_at) VALUES (?, ?, ?, ?, ?)",
            (digest, name, from_start, now.account is None, now.expires_at if now.expires_at < math.inf else None),
        )
        self._database.after_commit(partial(self._remember_token, digest, now))

    def _remember_token(self, digest: str, now: _Token) -> None:
        before = self._tokens.get(digest)
        if before is not None and before.account is not None:
            self._counts[before.account] -= 1
        if now.account is not None:
            self._counts[now.account] += 1
        self._tokens[digest] = now
