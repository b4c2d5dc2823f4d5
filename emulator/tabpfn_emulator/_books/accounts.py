"""Accounts and their tokens: several per account, so that keys can rotate."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from tabpfn_emulator._books.identity import DERIVED, account_of, digest_of
from tabpfn_emulator._state.database import Database


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
            rows = database.rows("SELECT digest, account, revoked FROM tokens")
            self._tokens: dict[str, str | None] = {digest: None if gone else name for digest, name, gone in rows}
            self._counts = Counter(name for name in self._tokens.values() if name is not None)
            rows = database.rows("SELECT name, email_verified, closed FROM accounts")
            self._verified: dict[str, bool] = {name: bool(verified) for name, verified, _ in rows}
            self._closed: set[str] = {name for name, _, closed in rows if closed}
            for name, token in named:
                if self._tokens.get(digest_of(token), "") not in {None, name}:
                    self.change(name, add_tokens=(token,), from_start=True)

    def of_token(self, token: str) -> str | None:
        """Return the account that a token opens; None for one that is revoked, unknown, or of a closed account."""
        digest = digest_of(token)
        if digest in self._tokens:
            name = self._tokens[digest]
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
        email_verified: bool | None = None,
        from_start: bool = False,
    ) -> dict[str, Any]:
        """Open or change an account.

        Args:
            name: Its name, without spaces; an account that a token has opened by itself goes by its `account_of`.
            add_tokens: Tokens that open it from now on, earlier revoked ones too.
            revoke_tokens: Tokens that open nothing any more.
            email_verified: False lets the API answer 403; None leaves it as it is, True for a new account.
            from_start: Whether the tokens hold for this run only.

        Returns:
            `name`, `email_verified`, and `tokens`, the number of tokens that were added and not revoked.

        Raises:
            ValueError: When a token is empty or opens another account, or the name is empty or has spaces: give
                other ones. Nothing was changed.
        """
        added, revoked = list(add_tokens), list(revoke_tokens)
        if not name or any(character.isspace() for character in name):
            raise ValueError("an account needs a name without spaces")
        for token in (*added, *revoked):
            if not token or token != token.strip():
                raise ValueError("a token is not empty and has no space around it")
            if self._tokens.get(digest_of(token), name) not in {None, name}:
                raise ValueError("the token belongs to another account")
        verified = self.email_verified(name) if email_verified is None else email_verified
        with self._database.transaction():
            self._write_account(name, verified=verified, closed=from_start and name in self._closed)
            for token, gone in (*((token, False) for token in added), *((token, True) for token in revoked)):
                self._write_token(digest_of(token), name, from_start=from_start, revoked=gone)
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
        self._verified[name] = verified
        (self._closed.add if closed else self._closed.discard)(name)

    def _write_token(self, digest: str, name: str, *, from_start: bool, revoked: bool) -> None:
        self._database.execute("INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)", (digest, name, from_start, revoked))
        before = self._tokens.get(digest)
        if before is not None:
            self._counts[before] -= 1
        if not revoked:
            self._counts[name] += 1
        self._tokens[digest] = None if revoked else name
