"""The speech service: `python app.py --host 0.0.0.0 --port 7860 --enable-queue`.

Everything that a flag does not set comes from the environment; see cosyvoice_app/settings.py.
"""

import sys

from cosyvoice_app.main import main

if __name__ == "__main__":
    sys.exit(main())
