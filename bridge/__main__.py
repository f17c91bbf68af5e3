"""``python -m bridge`` is ``chatapp-bridge``."""

from bridge.cli import main

raise SystemExit(main())
