"""`imagine-me policy`: what decides what may be made here, and approving a change of it."""

from __future__ import annotations

from typing import Annotated

import typer

from imagine.cli.console import JsonOption, print_json, say
from imagine.cli.serve import need_serve_extra
from imagine.errors import Cancelled

app = typer.Typer(help="The safety policy of this installation.", no_args_is_help=True)


@app.callback()
def _policy() -> None:
    pass


@app.command("show")
def show(json: JsonOption = False) -> None:
    """Say which policy is in force and what of it the operator switched off or weakened."""
    from imagine.safety.policy_set import policy_in_force, switched_off, weakened
    from imagine.settings import Settings

    settings = Settings()
    policy = policy_in_force(settings)
    if json:
        told = {"sha256": policy.sha256, "switched_off": list(switched_off(settings))}
        print_json({**told, "weakened": list(weakened(settings)), **policy.facts()})
        return
    print(f"prompt rules {policy.lexicon_version}, policy {policy.sha256}")
    for words in weakened(settings) or ("Nothing is switched off or weaker than as shipped.",):
        print(words)


@app.command("approve")
def approve(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Approve the policy that is in force, after an upgrade or a change of yours.

    A service starts only with the approved one. Each weakening becomes an entry of the audit log.
    """
    need_serve_extra()
    from imagine.service.settings import ServiceSettings
    from imagine.service.wiring import approve_policy, weakenings_to_approve
    from imagine.settings import Settings

    chosen, settings = ServiceSettings.from_environment(), Settings()
    for words in weakenings_to_approve(chosen, settings):
        say(f"weaker: {words}")
    if not yes and not typer.confirm("Approve this policy?", err=True):
        raise Cancelled("Nothing was approved.")
    print(f"Approved: {approve_policy(chosen, settings)}")
