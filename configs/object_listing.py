"""One listing of an object store, for programs that read many folders and small files of it again and again."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Self

from configs.object_storage import ObjectStorage


@dataclass(frozen=True)
class ListedObjects(ObjectStorage):
    """A storage whose folders and texts below a key are those of one moment, that of its listing.

    `folders` and `read_text` ask the store only for texts that have changed since the last listing. They do not find
    files of folders that were put as a whole. All other methods are those of `ObjectStorage`.
    """

    etags: Mapping[str, str] = field(default_factory=dict)  # of objects that are files of their own, by key
    children: Mapping[str, set[str]] = field(default_factory=dict)  # names of folders, by the key of their parent

    @classmethod
    def below(cls, storage: ObjectStorage, key: str) -> Self:
        """The storage as of now, with a listing of what is below a key."""
        etags: dict[str, str] = {}
        children: dict[str, set[str]] = {}
        objects = list(storage.bucket.below(storage.path(key)))
        deletions = storage.deletions()
        for each in objects:
            if not storage.is_being_deleted(each.key, deletions):
                etags[each.key] = each.etag
                folder = each.key.rpartition("/")[0]
                while folder:
                    parent, _, name = folder.rpartition("/")
                    children.setdefault(parent, set()).add(name)
                    folder = parent
        given = {each.name: getattr(storage, each.name) for each in fields(ObjectStorage)}
        return cls(**given, etags=etags, children=children)

    def folders(self, key: str = "") -> list[str]:
        return sorted(self.children.get(self.path(key), ()))

    def read_text(self, key: str) -> str:
        path = self.path(key)
        if path not in self.etags:
            raise FileNotFoundError(f"no object {path}")
        return self.bucket.read_cached(path, self.etags[path]).decode()
