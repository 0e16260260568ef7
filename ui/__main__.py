"""`python -m ui` is `layerscope`."""

from ui.cli import main

main()
