"""Alembic runs this file for every upgrade, on the connection `upgrade` opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
