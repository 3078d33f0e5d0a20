"""Files that the server sends as they are."""

from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_HEADERS = {
    # A browser asks each time whether its copy is still right, and an ETag answers without sending the file again.
    "Cache-Control": "no-cache",
    # A page loads and asks nothing of other origins. `data:` is for the icons in Swagger UI's stylesheet.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Files(StaticFiles):
    """A folder's files. ``get_response`` raises an HTTPException with 404 for what the folder does not hold."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or 304 for a client that has it."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_HEADERS)
        return response
