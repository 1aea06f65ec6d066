"""`imagine-me models`: what can be used, what is missing for one backend, what fits on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imagine.cli.console import JsonOption, as_dict, print_json, stdout_console, waiting

if TYPE_CHECKING:
    from imagine.cli.needs import Need

INCOMPLETE = 5  # exit status when something the backend needs is not here

app = typer.Typer(help="The models on this machine.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="A backend, as `models list` names it.")]


@app.callback()
def _models() -> None:
    pass


@app.command("list")
def list_models(json: JsonOption = False) -> None:
    """List every image model, face detector and face recogniser, with licence and state."""
    from imagine.cli.inventory import inventory
    from imagine.settings import Settings

    with waiting("Opening the models"):
        items = inventory(Settings())
    if json:
        print_json([as_dict(item) for item in items])
        return
    from rich.table import Table

    table = Table("kind", "name", "revision", "licence", "detail")
    for item in items:
        detail = item.detail if item.usable else "cannot be used"
        table.add_row(item.kind, item.name, item.revision, item.licence, detail)
    stdout_console().print(table)
    for sentence in dict.fromkeys(f"{i.name}: {i.detail}" for i in items if not i.usable):
        print(sentence)


@app.command("plan")
def plan_model(
    name: NameArgument,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="Memory of the device, e.g. 12GB; without it this machine's."),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the pictures, pixels.", show_default=False)
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option("--dtype", help="Acceptable precision; repeat, the preferred first."),
    ] = None,
    float8: Annotated[
        bool,
        typer.Option("--float8", help="Allow weights in eight bits, which costs some quality."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Say what fits on a device before anything is loaded: precision, offload, tiles, batch."""
    from imagine.backends import BACKENDS
    from imagine.backends.memory_plan import device_bytes, make_plan, parse_memory, rows_that_fit

    BACKENDS.check(name)
    memory = parse_memory(gpu) if gpu is not None else device_bytes("cuda")
    plan = make_plan(name, memory, size=size, dtypes=dtype or (), allow_float8=float8)
    if json:
        print_json({**as_dict(plan), "rows": rows_that_fit(plan)})
    else:
        print(plan.in_words())


@app.command("doctor")
def model_doctor(name: NameArgument, json: JsonOption = False) -> None:
    """Say what one backend needs here: what is missing, its licence, its size, how to get it.

    Ends with status 5 when something is missing.
    """
    from imagine.backends.licences import LicenceMode, LicenceStamp, licence_chain
    from imagine.cli.needs import needs_of
    from imagine.settings import Settings

    with waiting("Looking for the parts"):
        needs = needs_of(name, Settings())
    missing = [need for need in needs if not need.is_here]
    # What lies here may be another member of the family than the one we name the command for.
    base = next((Path(need.detail) for need in needs if need.role == "base" and need.is_here), None)
    stamp = LicenceStamp(LicenceMode.RESEARCH, licence_chain(name, weights=base))
    is_free = not stamp.restricted
    if json:
        facts = {"backend": name, "ready": not missing, "is_free": is_free}
        chain = [as_dict(part) for part in stamp.chain]
        print_json({**facts, "needs": [as_dict(need) for need in needs], "chain": chain})
    else:
        for need in needs:
            print(_in_words(need))
        print("Licences:")
        for part in stamp.chain:
            print(f"  {part.in_words()}")
        print(
            "Free for commercial use."
            if is_free
            else "Not for commercial use: it is loaded with --licence research only."
        )
        print(
            f"{len(missing)} of {len(needs)} parts are missing."
            if missing
            else f"{name} has everything it needs."
        )
    if missing:
        raise typer.Exit(INCOMPLETE)


def _in_words(need: Need) -> str:
    facts = ", ".join(fact for fact in (need.size, need.licence) if fact)
    state = "ok" if need.is_here else "missing"
    return f"{state:8} {need.role} {need.name}{f' ({facts})' if facts else ''}: {need.detail}"
