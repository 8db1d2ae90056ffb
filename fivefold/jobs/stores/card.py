"""What a collection says of itself, as one JSON text in the store's own metadata: origin and types of the columns."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

import pyarrow as pa

from fivefold.errors import InputError, StoreError
from fivefold.jobs.store import Origin

KEY = "fivefold"
"""Name of the card in metadata that is a mapping."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Card:
    """Origin of the vectors, and names and Arrow types of the columns that go along."""

    origin: Origin
    schema: pa.Schema

    def to_json(self) -> str:
        """One line of ASCII."""
        schema = base64.b64encode(self.schema.remove_metadata().serialize()).decode("ascii")
        return json.dumps({"format": FORMAT, "origin": self.origin.to_dict(), "schema": schema})

    @classmethod
    def from_json(cls, text: str, where: str) -> Card:
        """Inverse of `to_json`; `where` is the store's name for errors."""
        try:
            told = json.loads(text)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(told["schema"])))
            return cls(Origin.from_dict(told["origin"]), schema)
        except (ValueError, KeyError, TypeError, pa.ArrowException):
            raise StoreError(
                f"{where}: its fivefold metadata cannot be read; it was damaged, or a newer fivefold wrote it: "
                "index into another collection"
            ) from None


class Carded:
    """What every store does with its card, which each has in a place of its own."""

    _where: str

    def card(self) -> Card | None:
        """The collection's card; `None` where there is no collection yet."""
        raise NotImplementedError

    def origin(self) -> Origin | None:
        """From the card."""
        card = self.card()
        return None if card is None else card.origin

    def made(self) -> Card:
        """The card of a collection that has to be there."""
        card = self.card()
        if card is None:
            raise absent(self._where)
        return card


def check_float32(origin: Origin, store: str, hint: str = "") -> None:
    """Refuse vectors in another precision, for a store that keeps no other."""
    if origin.precision != "float32":
        raise InputError(f"{store} is written in float32, not {origin.precision}; embed in float32{hint}")


def stranger(where: str) -> InputError:
    """The refusal of a collection that says nothing of its vectors."""
    return InputError(
        f"{where} was not made by fivefold: nothing says which model, task and dimensions its vectors have, so neither "
        "writing nor searching is safe. Index the texts into a new collection"
    )


def absent(where: str) -> StoreError:
    """The error of a call that needs a collection which is not there."""
    return StoreError(f"{where}: there is no such collection; index something into it first")
