"""``python -m vitexport``."""

from vitexport.cli import main

main()
