"""Prints what a directory's tree is, one JSON object a line: [path, facts].

Usage: facts.py DIRECTORY [SKIPPED...]

Written in another language than what it judges. Paths are relative, "." is the directory itself; bytes that are not
UTF-8 stand as lone surrogates (PEP 383). Entries in order of their names' bytes.
"""

import hashlib
import json
import os
import stat
import sys

CONTENT_STEP = 1 << 20


def digest(path):
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while True:
            data = file.read(CONTENT_STEP)
            if not data:
                return sha.hexdigest()
            sha.update(data)


def facts(path, entry, known):
    """`path` is what the kernel is asked with."""
    found = {
        "mode": "%o" % entry.st_mode,
        "uid": entry.st_uid,
        "gid": entry.st_gid,
        "mtime": str(entry.st_mtime_ns),
        "nlink": entry.st_nlink,
    }
    if stat.S_ISREG(entry.st_mode):
        found["size"] = entry.st_size
        same = known.get(entry.st_ino) if entry.st_nlink > 1 else None
        found["sha"] = same if same is not None else digest(path)
        if entry.st_nlink > 1:
            known[entry.st_ino] = found["sha"]
    elif stat.S_ISLNK(entry.st_mode):
        found["size"] = entry.st_size
        found["target"] = os.readlink(os.fsencode(path)).hex()
    elif stat.S_ISCHR(entry.st_mode) or stat.S_ISBLK(entry.st_mode):
        found["rdev"] = "%d:%d" % (os.major(entry.st_rdev), os.minor(entry.st_rdev))
    names = os.listxattr(path, follow_symlinks=False)
    if names:
        found["xattr"] = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}
    return found


def walk(folder, shown, links, known, skipped, out):
    """Through the descriptor of each directory: no path is too long."""
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries), key=os.fsencode)
    for name in names:
        path = "/proc/self/fd/%d/%s" % (folder, name)
        relative = name if shown == "." else shown + "/" + name
        if relative in skipped:
            continue
        entry = os.lstat(path)
        found = facts(path, entry, known)
        if entry.st_nlink > 1 and not stat.S_ISDIR(entry.st_mode):
            found["hl"] = links.setdefault((entry.st_dev, entry.st_ino), relative)
        out.write(json.dumps([relative, found]) + "\n")
        if stat.S_ISDIR(entry.st_mode):
            below = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                walk(below, relative, links, known, skipped, out)
            finally:
                os.close(below)


def main():
    sys.setrecursionlimit(10_000)
    root = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECTORY)
    path = "/proc/self/fd/%d/." % root
    sys.stdout.write(json.dumps([".", facts(path, os.lstat(path), {})]) + "\n")
    walk(root, ".", {}, {}, set(sys.argv[2:]), sys.stdout)


main()
