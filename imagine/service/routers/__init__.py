"""The routes of the HTTP face, one file per kind of thing."""
