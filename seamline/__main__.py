"""``python -m seamline`` is the ``seamline`` command."""

from .cli import app

app()
