"""Download a pinned revision from a Hugging Face hub, through `huggingface_hub`.

`HF_ENDPOINT` chooses the hub; the token comes only from the file named by `HF_TOKEN_PATH`.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_builder.errors import BadInputError, BuilderError, Reason, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from huggingface_hub import HfApi

_REVISION = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_DEFAULT_ENDPOINT = "https://huggingface.co"
_DENIED = (401, 403)
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class HubReference:
    """A repository at one commit.

    Args:
        repo: ORG/NAME.
        revision: 40 lower-case hex digits.
    """

    repo: str
    revision: str

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise BadInputError(Reason.INVALID_ARGUMENT, f"repo {self.repo!r} must look like ORG/NAME")
        if not _REVISION.fullmatch(self.revision):
            raise BadInputError(
                Reason.INVALID_ARGUMENT,
                f"revision {self.revision!r} must be a full commit: 40 lower-case hex digits",
            )


@dataclass(frozen=True)
class HubFile:
    """A file as the hub lists it: bytes, and SHA-256 as hex where the hub knows it (of large files)."""

    size: int
    sha256: str | None = None


def _no_token(path: str | None) -> BadInputError:
    # What it holds is a secret, whatever it is.
    return BadInputError(
        Reason.ACCESS_DENIED,
        f"the token file {path} holds no token, which is one word of printable characters: write the secret again",
    )


def _transport_error(http_error: type[Exception]) -> type[Exception]:
    """What the HTTP library of this version of huggingface_hub raises when the server does not answer."""
    return next(base for base in http_error.__mro__[1:] if issubclass(base, Exception))


class Hub:
    """A hub, as far as a checkpoint needs it."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        # The library otherwise tells the hub about the program that uses it.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi

        self.endpoint = endpoint
        self._api: HfApi = HfApi(endpoint=endpoint, token=token or False)

    @classmethod
    def from_environment(cls) -> Hub:
        """The hub that the environment names.

        Raises:
            BadInputError: the token file cannot be read.
        """
        path = os.environ.get("HF_TOKEN_PATH")
        try:
            token = Path(path).read_text(encoding="utf-8").strip() if path else None
        except OSError as error:
            raise BadInputError(
                Reason.ACCESS_DENIED, f"the token file {path} cannot be read ({error.strerror}): mount the secret"
            ) from error
        except ValueError as error:
            raise _no_token(path) from error
        if token and not _TOKEN.fullmatch(token):
            raise _no_token(path)
        return cls(os.environ.get("HF_ENDPOINT", _DEFAULT_ENDPOINT).rstrip("/"), token)

    def files(self, reference: HubReference) -> Mapping[str, HubFile]:
        """All files of a revision.

        Raises:
            BuilderError: repository or revision not found, access denied, or hub not reachable.
        """
        with self._errors(reference):
            info = self._api.model_info(reference.repo, revision=reference.revision, files_metadata=True)
        return {
            sibling.rfilename: HubFile(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
            for sibling in info.siblings or ()
        }

    def download(self, reference: HubReference, name: str, target: Path) -> None:
        """Put one file below `target`, under its own relative name; a partial download is continued.

        Raises:
            BuilderError: as in `files`.
        """
        with self._errors(reference):
            self._api.hf_hub_download(reference.repo, name, revision=reference.revision, local_dir=target)

    @contextmanager
    def _errors(self, reference: HubReference) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            yield
        except HfHubHTTPError as error:
            raise self._http_error(reference, error) from error
        except (_transport_error(HfHubHTTPError), LocalEntryNotFoundError, ConnectionError) as error:
            raise UnavailableError(
                Reason.HUB_UNREACHABLE,
                f"the hub {self.endpoint} cannot be reached ({type(error).__name__}): check HF_ENDPOINT, proxy and "
                "network policy; it is tried again",
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            # The library's own words for a file that came incomplete.
            raise UnavailableError(
                Reason.HUB_UNREACHABLE, f"{reference.repo} came incomplete from {self.endpoint}; it is tried again"
            ) from error

    def _http_error(self, reference: HubReference, error: Exception) -> BuilderError:
        from huggingface_hub import errors

        status = getattr(getattr(error, "response", None), "status_code", 0)
        where = f"{reference.repo} on {self.endpoint}"
        if isinstance(error, errors.GatedRepoError) or status in _DENIED:
            if isinstance(error, errors.RepositoryNotFoundError) and not isinstance(error, errors.GatedRepoError):
                # The hub says 401 for what does not exist, so that private and absent look alike.
                return BadInputError(
                    Reason.REPOSITORY_NOT_FOUND, f"there is no {where}, or it is private: check repo and token"
                )
            return BadInputError(
                Reason.ACCESS_DENIED, f"access to {where} is denied: accept its terms, give a token that may read it"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return BadInputError(Reason.REPOSITORY_NOT_FOUND, f"there is no {where}: check repo and HF_ENDPOINT")
        if isinstance(error, errors.RevisionNotFoundError):
            return BadInputError(
                Reason.REVISION_NOT_FOUND, f"{where} has no revision {reference.revision}: take one of its commits"
            )
        if isinstance(error, errors.EntryNotFoundError):
            return BadInputError(Reason.MISSING_FILE, f"a file of {where} is gone: {error}".splitlines()[0])
        return UnavailableError(
            Reason.HUB_UNREACHABLE, f"the hub {self.endpoint} answered with status {status}; it is tried again"
        )
