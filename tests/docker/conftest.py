from __future__ import annotations

from tests import container

# test_image.py needs docker or podman and a built image: make test-container.
collect_ignore = [] if container.IMAGE else ["test_image.py"]
