"""The HTTP face: jobs, keys and tenants over the storage and the engine.

`client` talks to a service and needs neither FastAPI nor torch; `wiring` builds one and `api`
gives it its routes.
"""
