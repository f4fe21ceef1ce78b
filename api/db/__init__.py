"""The database: PostgreSQL in production, SQLite in one file on one machine; every query within its tenant."""

from api.db.engine import Database, open_database, sqlite_url
from api.db.tenancy import session_of

__all__ = ["Database", "open_database", "session_of", "sqlite_url"]
