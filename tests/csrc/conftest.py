"""Lets the tests of this folder import `intrinsics`, which builds the DVX headers for them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # the folder is not a package
