"""`python -m ui` is `layerscope`."""

from ui.terminal.cli import main

main()
