"""`imagine-me models list`: image models and face models, and whether they can be used."""

from __future__ import annotations

import typer

from imagine.cli.console import JsonOption, as_dict, print_json, stdout_console, waiting

app = typer.Typer(help="The models on this machine.", no_args_is_help=True)


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
