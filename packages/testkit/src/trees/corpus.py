"""Makes a directory with every kind of entry that an image can hold.

Usage: corpus.py DIRECTORY [--many N] [--large BYTES]

As root, on a filesystem with user and trusted xattrs (ext4, xfs). The same bytes each time.
"""

import os
import random
import socket
import struct
import sys

SEED = 20260720
TIME = 1_600_000_000
OLD = -86_400 * 365 * 5  # 1965
BLOCK = 4096
MIB = 1 << 20


def noise(length, seed):
    return random.Random(seed).randbytes(length)


def prose(length, seed):
    """Compressible: words in a random order."""
    words = [noise(5, seed * 64 + each).hex().encode() for each in range(64)]
    chooser = random.Random(seed)
    text = b""
    while len(text) < length:
        text += chooser.choice(words) + b" "
    return text[:length]


def acl(*entries):
    """Of linux/posix_acl_xattr.h: version 2, then tag, permissions and id of each."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
ACCESS = acl((1, 6, NOBODY), (2, 4, 1234), (4, 4, NOBODY), (8, 6, 4471), (16, 6, NOBODY), (32, 4, NOBODY))
DEFAULT = acl((1, 7, NOBODY), (2, 5, 1234), (4, 5, NOBODY), (16, 5, NOBODY), (32, 5, NOBODY))
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
CAPABILITY_OF_NAMESPACE = bytes.fromhex("0100000300040000000000000000000000000000a0860100")


class Corpus:
    def __init__(self, root):
        self.root = os.fsencode(root)
        self.times = []
        os.makedirs(self.root, exist_ok=True)

    def path(self, name):
        return os.path.join(self.root, name if isinstance(name, bytes) else os.fsencode(name))

    def finish(self, path, mode=None, uid=0, gid=0, mtime=TIME * 10**9, xattrs=()):
        os.chown(path, uid, gid, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)
        for name, value in xattrs:
            os.setxattr(path, name, value, follow_symlinks=False)
        # Files made later change their directory's time: all are set at the end.
        self.times.append((path, mtime))

    def folder(self, name, mode=0o755, **facts):
        path = self.path(name)
        os.mkdir(path)
        self.finish(path, mode, **facts)

    def file(self, name, content=b"", mode=0o644, **facts):
        path = self.path(name)
        with open(path, "xb") as file:
            file.write(content)
        self.finish(path, mode, **facts)

    def holed(self, name, size, pieces, **facts):
        path = self.path(name)
        with open(path, "xb") as file:
            for offset, content in pieces:
                file.seek(offset)
                file.write(content)
            file.truncate(size)
        self.finish(path, 0o644, **facts)

    def link(self, name, target):
        os.link(self.path(target), self.path(name), follow_symlinks=False)

    def symlink(self, name, target, **facts):
        path = self.path(name)
        os.symlink(target, path)
        self.finish(path, **facts)

    def node(self, name, kind, major=0, minor=0, mode=0o600, **facts):
        path = self.path(name)
        os.mknod(path, kind | mode, os.makedev(major, minor))
        self.finish(path, mode, **facts)

    def end(self):
        self.finish(self.root, 0o751, uid=11, gid=12, mtime=1_300_000_000 * 10**9 + 1, xattrs=[("user.top", b"yes")])
        for path, mtime in reversed(self.times):
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def sizes(corpus, large):
    corpus.folder("sizes")
    for size in (0, 1, 4095, 4096, 4097, 65535, 65536, 65537, MIB - 1, MIB, MIB + 1):
        corpus.file("sizes/noise-%d" % size, noise(size, SEED + size))
    corpus.file("sizes/prose", prose(300_000, SEED))
    corpus.file("sizes/several-chunks", noise(3 * MIB + 123, SEED + 1))
    corpus.file("sizes/the-same-again", noise(3 * MIB + 123, SEED + 1))
    corpus.file("sizes/zeros", bytes(2 * MIB + 5))
    corpus.holed("sizes/holed", 5 * MIB + 11, [(MIB + 7, b"middle"), (3 * MIB, noise(70_000, SEED + 2))])
    corpus.holed("sizes/only-a-hole", 3 * MIB, [])
    if large > 0:
        corpus.holed("sizes/large", large, [(0, b"first"), (large // 2, noise(MIB, SEED + 3)), (large - 4, b"last")])


def links(corpus):
    corpus.folder("links")
    corpus.folder("links/below")
    corpus.file("links/first", noise(9000, SEED + 4), mode=0o600, uid=7, gid=8)
    for name in ("links/second", "links/below/third", "aaa-before-the-folder"):
        corpus.link(name, "links/first")
    corpus.file("links/empty")
    corpus.link("links/empty-too", "links/empty")
    corpus.file("links/zz-first", b"made first", xattrs=[("user.of", b"both")])
    corpus.link("links/aa-second", "links/zz-first")
    corpus.symlink("links/symlink", b"first", mtime=TIME * 10**9 + 5)
    corpus.link("links/symlink-too", "links/symlink")
    corpus.node("links/fifo", 0o010000)
    corpus.link("links/fifo-too", "links/fifo")
    corpus.node("links/device", 0o020000, 1, 3)
    corpus.link("links/device-too", "links/device")


def symlinks(corpus):
    corpus.folder("symlinks")
    corpus.symlink("symlinks/dangling", b"nowhere")
    corpus.symlink("symlinks/absolute", b"/etc/hostname", uid=70_000, gid=80_000, mtime=12_345 * 10**9 + 678)
    corpus.symlink("symlinks/itself", b"itself")
    corpus.symlink("symlinks/above", b"../../../outside")
    corpus.symlink("symlinks/not-utf-8", b"bad\xff\xfeutf8\n")
    corpus.symlink("symlinks/folder", b"../sizes")
    for length in (1, 40, 44, 48, 59, 60, 61, 63, 64, 254, 255, 256, 601, 3968, 4031, 4032, 4033, 4095):
        corpus.symlink("symlinks/length-%d" % length, (b"a/" * length)[:length])


def special(corpus):
    corpus.folder("special")
    corpus.node("special/null", 0o020000, 1, 3, mode=0o666)
    corpus.node("special/zero-one", 0o020000, 0, 1)
    corpus.node("special/large-numbers", 0o020000, 4095, 1_048_575)
    corpus.node("special/block", 0o060000, 8, 17, mode=0o640, gid=6)
    corpus.node("special/block-large-minor", 0o060000, 259, 70_000)
    corpus.node("special/fifo", 0o010000, mode=0o622)
    listener = socket.socket(socket.AF_UNIX)
    here = os.open(".", os.O_RDONLY)
    os.chdir(corpus.path("special"))
    listener.bind("socket")
    os.fchdir(here)
    corpus.finish(corpus.path("special/socket"), 0o755, uid=3)


def modes(corpus):
    corpus.folder("modes")
    for mode in (0, 0o400, 0o111, 0o777, 0o4755, 0o2755, 0o1644, 0o7777):
        corpus.file("modes/%04o" % mode, b"mode", mode=mode, uid=1000, gid=2000)
    corpus.folder("modes/sticky", 0o1777)
    corpus.folder("modes/setgid", 0o2775, gid=50)
    corpus.file("modes/large-ids", b"ids", uid=4_294_967_294, gid=4_294_967_294)
    corpus.file("modes/ids-of-17-bits", b"ids", uid=65_536, gid=65_537)


def times(corpus):
    corpus.folder("times", mtime=OLD * 10**9 + 999_999_999)
    corpus.file("times/negative", b"t", mtime=-1)
    corpus.file("times/1965", b"t", mtime=OLD * 10**9 + 5)
    corpus.file("times/zero", b"t", mtime=0)
    corpus.file("times/one-nanosecond", b"t", mtime=1)
    corpus.file("times/nanoseconds", b"t", mtime=TIME * 10**9 + 123_456_789)
    corpus.file("times/2100", b"t", mtime=4_102_444_800 * 10**9 + 999_999_999)
    corpus.symlink("times/symlink", b"negative", mtime=-5 * 10**9 + 1)


def names(corpus):
    corpus.folder("names")
    odd = [b"!before-the-dot", b"-dash", b" blank", b"..dots", b"...", b".hidden", b"a\nb", b"\n", b"\x01\x7f\\\"'"]
    odd += [b"\xff\xfe\x80", "grün".encode(), "grün".encode("latin-1"), b"x" * 255, b"\xff" * 255, b"*", b"$HOME", b"~"]
    odd += [b".wh", b"wh.", b"image.boot", b"%2e%2e", b"a:b", "\u2028".encode(), "e\u0301".encode(), "é".encode()]
    for name in odd:
        corpus.file(b"names/" + name, name)
    corpus.folder(b"names/in\nfolder\xff")
    corpus.file(b"names/in\nfolder\xff/file", b"below")
    deep = b"names/deep"
    corpus.folder(deep)
    for depth in range(60):
        deep += b"/%d-" % depth + b"d" * 40
        corpus.folder(deep)
    corpus.file(deep + b"/bottom", b"bottom")


def xattrs(corpus):
    corpus.folder("xattrs")
    corpus.file("xattrs/user", b"x", xattrs=[("user.a", b"1"), ("user.binary", bytes(range(256))), ("user.empty", b"")])
    corpus.file("xattrs/long-name", b"x", xattrs=[("user." + "n" * 250, b"v")])
    corpus.file("xattrs/not-utf-8", b"x", xattrs=[(b"user.\xff\xfe\n", b"\x00\xff")])
    corpus.file("xattrs/many", b"x", xattrs=[("user.k%02d" % each, b"v" * each) for each in range(50)])
    corpus.file("xattrs/large", b"x", xattrs=[("user.large", noise(3900, SEED + 5))])
    corpus.file("xattrs/capability", b"x", mode=0o755, xattrs=[("security.capability", CAPABILITY)])
    corpus.file(
        "xattrs/capability-of-a-namespace",
        b"x",
        mode=0o755,
        xattrs=[("security.capability", CAPABILITY_OF_NAMESPACE)],
    )
    corpus.file("xattrs/security", b"x", xattrs=[("security.pantala", b"label\x00")])
    corpus.file("xattrs/trusted", b"x", xattrs=[("trusted.pantala", b"value")])
    corpus.file("xattrs/redirect", b"x", xattrs=[("trusted.overlay.redirect", b"/x/y")])
    corpus.file("xattrs/access-list", b"x", mode=0o664, xattrs=[("system.posix_acl_access", ACCESS)])
    corpus.folder("xattrs/default-list", xattrs=[("system.posix_acl_default", DEFAULT)])
    corpus.folder("xattrs/folder", xattrs=[("user.folder", b"yes"), ("trusted.folder", b"yes")])
    for each in range(5):
        corpus.file("xattrs/shared%d" % each, b"x", xattrs=[("user.shared", b"the same value in all files" * 20)])
    corpus.file("xattrs/empty-file", b"", xattrs=[("user.on", b"nothing")])
    corpus.symlink("xattrs/symlink", b"user", xattrs=[("trusted.on", b"symlink")])
    corpus.symlink("xattrs/long-symlink", b"s" * 3900, xattrs=[("trusted.on", b"t" * 300)])
    corpus.node("xattrs/fifo", 0o010000, xattrs=[("trusted.on", b"fifo")])
    corpus.node("xattrs/device", 0o020000, 5, 1, xattrs=[("trusted.on", b"device")])


def many(corpus, count):
    corpus.folder("many")
    for each in range(count):
        corpus.file("many/%d-%s" % (each, "n" * (each % 90)), b"%d" % (each % 7))
    corpus.folder("texts")
    for each in range(200):
        corpus.file("texts/%d.conf" % each, b"".join(b"key-%d = the value of %d\n" % (line, each) for line in range(30)))
    corpus.folder("folders")
    for each in range(min(count, 500)):
        corpus.folder("folders/%d" % each)


def main():
    arguments = sys.argv[2:]

    def number(option, default):
        return int(arguments[arguments.index(option) + 1]) if option in arguments else default

    os.umask(0)
    corpus = Corpus(sys.argv[1])
    sizes(corpus, number("--large", 0))
    links(corpus)
    symlinks(corpus)
    special(corpus)
    modes(corpus)
    times(corpus)
    names(corpus)
    xattrs(corpus)
    many(corpus, number("--many", 1500))
    corpus.end()


main()
