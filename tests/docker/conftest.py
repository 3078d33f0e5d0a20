from __future__ import annotations

from tests import container

# It needs an engine and a built image: make test-container.
collect_ignore = [] if container.IMAGE else ["test_image.py"]
