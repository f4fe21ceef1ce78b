"""YAML that remembers where each value stood, so that an error can name file and line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from serve.errors import ConfigError

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """Parsed YAML.

    Attributes:
        name: The file, as the person wrote it.
        data: What the file says.
        places: `file:line` (from 1) of each value by its path; keys point at the key.
    """

    name: str
    data: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict[Path, str])

    def place(self, path: Path) -> str:
        """Return `file:line` of a path, or of the nearest thing around it that is in a file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.name)

    def over(self, base: Document) -> Document:
        """Return this document laid over another: mappings merge key by key, everything else is replaced.

        What is left of the base keeps its own place.
        """
        merged = Document(self.name, dict(base.data), dict(base.places))
        _lay(merged, merged.data, self.data, ())
        merged.places |= self.places
        return merged


def _lay(merged: Document, below: dict[str, Any], above: dict[str, Any], path: Path) -> None:
    for key, value in above.items():
        here, under = (*path, key), below.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            below[key] = dict(cast("dict[str, Any]", under))
            _lay(merged, below[key], cast("dict[str, Any]", value), here)
        else:
            below[key] = value
            merged.places = {known: at for known, at in merged.places.items() if known[: len(here)] != here}


def dotted(path: Path) -> str:
    """Write a path the way people do: `models[0].engine`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(text: str, name: str) -> Document:
    """Parse one YAML document.

    Raises:
        ConfigError: It is not YAML, not a mapping, or says a key twice; with file and line.
    """
    document = Document(name, {})
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{name}: the file is empty")
        data = _build(loader, node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        raise ConfigError(f"{place}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(data, dict):
        raise ConfigError(f"{name}:1: a profile is a mapping of keys, not a {type(data).__name__}")
    document.data = data
    return document


def _build(loader: yaml.SafeLoader, node: yaml.Node, path: Path, document: Document) -> Any:
    document.places.setdefault(path, f"{document.name}:{node.start_mark.line + 1}")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            if key in mapping:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"{document.name}:{line}: {dotted((*path, key))}: the key is there twice")
            document.places[(*path, key)] = f"{document.name}:{key_node.start_mark.line + 1}"
            mapping[key] = _build(loader, value_node, (*path, key), document)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, index), document) for index, item in enumerate(node.value)]
    return cast(Any, loader).construct_object(node)
