"""A store's URL, taken apart: `scheme://user:password@host:port/path?option=value`, or `scheme:///path` for files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from fivefold.errors import InputError

SECRET = re.compile(r"(?<=:)[^:@/]*(?=@)|(?<=password=)[^&]*")


@dataclass(frozen=True, slots=True)
class Url:
    """The parts of a URL; `host` is None where it names files of this machine."""

    text: str
    scheme: str
    host: str | None
    port: int | None
    secret: str | None
    path: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Url:
        """The parts of a URL as written."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise InputError(f"{text!r} is not a URL: {error}") from None
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        secret = None if parts.password is None else unquote(parts.password)
        return cls(text, parts.scheme, parts.hostname, port, secret, unquote(parts.path), options)

    def __str__(self) -> str:
        """As written, without the password."""
        return SECRET.sub("***", self.text)

    @property
    def tls(self) -> bool:
        """Whether `?tls=` asks for an encrypted connection."""
        return self.options.get("tls", "0").lower() in ("1", "true", "yes")

    def name(self) -> str:
        """The path of a server's URL: the one name in it."""
        name = self.path.strip("/")
        if not name or "/" in name:
            raise InputError(f"{self} must name one collection after the host")
        return name

    def folder_and_name(self) -> tuple[str, str]:
        """The path of files: where they lie, and the name of what is looked for in them."""
        folder, _, name = self.path.rstrip("/").rpartition("/")
        if not folder or not name or self.host is not None:
            raise InputError(
                f"{self} must name a folder and, after it, a collection; an absolute path has three slashes"
            )
        return folder, name

    def folder(self) -> str:
        """The path of files, where the folder is the collection."""
        if not self.path.strip("/") or self.host is not None:
            raise InputError(f"{self} must name a folder; an absolute path has three slashes")
        return self.path

    def server(self, default_port: int) -> str:
        """Scheme, host and port of a server that speaks HTTP."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port or default_port}"

    def first_pass(self) -> str | int | None:
        """The form in `?first=` that a first pass compares: `binary`, a number of dimensions, or None for no first pass."""
        asked = self.options.get("first")
        if asked is None or asked == "binary":
            return asked
        if not asked.isdecimal() or int(asked) < 1:
            raise InputError(f"{self}: first= must be binary or a number of dimensions, got {asked!r}")
        return int(asked)
