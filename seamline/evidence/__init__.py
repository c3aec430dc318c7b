"""A result that can be handed on: a folder with record, pictures, page and manifest, and the check that it repeats.

``record.py`` says what is written down, ``page.py`` shows it, ``bundle.py`` puts it in a folder, ``verify.py`` does it
all again and compares.
"""

from .bundle import folders as folders
from .bundle import keygen as keygen
from .bundle import scan as scan
from .bundle import write as write
from .verify import Difference as Difference
from .verify import Verification as Verification
from .verify import verify as verify
