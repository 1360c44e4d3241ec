"""How Python's tarfile understands archives: for each path on standard input, one line of JSON.

A list of entries (name, kind, size, mode, link target, SHA-256 of the content), or null where it refuses the archive.
"""

import hashlib
import json
import sys
import tarfile


def kind(member):
    if member.isdir():
        return "directory"
    if member.issym():
        return "symlink"
    if member.islnk():
        return "hardlink"
    if member.isreg():  # and what has holes
        return "file"
    return "other"


def digest(archive, member):
    sha256 = hashlib.sha256()
    content = archive.extractfile(member)
    left = member.size
    while left:
        piece = content.read(min(left, 1 << 20))
        if not piece:
            raise EOFError
        sha256.update(piece)
        left -= len(piece)
    return sha256.hexdigest()


def entries(path):
    with tarfile.open(path, "r:") as archive:
        return [
            {
                "name": member.name,
                "kind": kind(member),
                "size": member.size if member.isreg() else 0,
                "mode": member.mode,
                "link": member.linkname if member.issym() or member.islnk() else "",
                "sha256": digest(archive, member) if member.isreg() else None,
            }
            for member in archive
        ]


for line in sys.stdin:
    try:
        found = entries(line.rstrip("\n"))
    except Exception:  # whatever it is, it is no understanding
        found = None
    print(json.dumps(found), flush=True)
