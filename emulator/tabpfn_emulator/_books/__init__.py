"""Who did what and what it cost: accounts, journal, charges, limits."""
