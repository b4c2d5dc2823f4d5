"""What survives a restart: the database, and what is kept in it."""
