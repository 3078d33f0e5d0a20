"""Lists a model repository: folders ``<name>/<version>``, in which ``manifest.json`` comes last."""

import logging
import re
from pathlib import Path

from service.errors import InvalidManifest, StartupError

log = logging.getLogger("inferception")

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)  # has no need of quotes in a URL, a shell or a metric
_VERSION = re.compile(r"[1-9][0-9]*")  # so that no two names are one number


def model_folders(repository: Path) -> list[Path]:
    """Return the folder of every model, by name. Raises StartupError when the repository can't be read.

    The log names folders that are left out because theirs is no model's name: letters, digits, ``.``, ``_``, ``-``.
    """
    try:
        folders = sorted(path for path in repository.iterdir() if not path.is_file())
    except OSError as error:
        raise StartupError(
            f"can't read the model repository {repository}: {error.strerror}; mount it, or run `make export` first"
        ) from error
    return [folder for folder in folders if _is_named(folder, _NAME, "letters, digits, '.', '_' and '-'")]


def version_folders(model: Path) -> list[Path]:
    """Return the folder of every version of a model, by number. Raises InvalidManifest when it can't be read.

    The log names what is left out: a name that is no positive integer, and a version that has no manifest.json yet.
    """
    try:
        paths = list(model.iterdir())
    except OSError as error:
        raise InvalidManifest(f"can't read {model}: {error.strerror}") from error
    versions = [path for path in paths if _is_named(path, _VERSION, "a positive integer without leading zeros")]
    return sorted((folder for folder in versions if _is_complete(folder)), key=lambda folder: int(folder.name))


def _is_named(path: Path, pattern: re.Pattern[str], rule: str) -> bool:
    if pattern.fullmatch(path.name):
        return True
    if not path.name.startswith("."):
        log.warning("left out %r: a name here must be %s", str(path), rule)
    return False


def _is_complete(folder: Path) -> bool:
    try:
        complete = any(path.name == "manifest.json" for path in folder.iterdir())
    except OSError:  # reading the version will say what is wrong
        return True
    if not complete:
        log.warning("left out %s: it has no manifest.json yet; restart when it is complete", folder)
    return complete
