"""Readers that compare a mounted tree with the one that it was made of.

compare.py TREE MOUNT READERS SECONDS SEED: each reader is a process that reads random ranges of random files, drops them
from the page cache again, and compares. SECONDS 0: each reads every file once, whole, in an order of its own. Prints one
line of JSON, at the latest after SIGTERM: reads, bytes, errors (the first few), wrong (ranges with other bytes), and the longest waits of one read in
milliseconds.
"""
import json
import multiprocessing
import os
import random
import signal
import sys
import time


def files_of(tree):
    found = []
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) > 0:
                found.append(os.path.relpath(path, tree))
    return sorted(found)


def reader(tree, mount, names, seconds, seed, results, stop):
    chance = random.Random(seed)
    out = {"reads": 0, "bytes": 0, "errors": [], "wrong": [], "waits": []}
    end = time.monotonic() + seconds
    order = list(names)
    chance.shuffle(order)

    def read(name, offset, count):
        began = time.monotonic()
        try:
            descriptor = os.open(os.path.join(mount, name), os.O_RDONLY)
            try:
                found = os.pread(descriptor, count, offset)
                if seconds > 0:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
        except OSError as error:
            out["errors"].append([name, offset, os.strerror(error.errno)])
            return
        waited = (time.monotonic() - began) * 1000
        out["waits"] = sorted(out["waits"] + [waited])[-20:]
        with open(os.path.join(tree, name), "rb") as origin:
            origin.seek(offset)
            if origin.read(count) != found:
                out["wrong"].append([name, offset, count, "zeros" if not any(found) else "other"])
        out["reads"] += 1
        out["bytes"] += len(found)

    if seconds == 0:
        for name in order:
            size = os.path.getsize(os.path.join(tree, name))
            for offset in range(0, size, 1 << 20):
                read(name, offset, 1 << 20)
    while time.monotonic() < end and not stop.is_set():
        name = chance.choice(order)
        size = os.path.getsize(os.path.join(tree, name))
        read(name, chance.randrange(size), chance.choice([1, 4096, 65536, 200000]))
    out["errors"] = out["errors"][:5] + [None] * max(0, len(out["errors"]) - 5)
    results.put(out)


def main():
    stop = multiprocessing.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    tree, mount, readers, seconds, seed = sys.argv[1:]
    names = files_of(tree)
    results = multiprocessing.Queue()
    started = [
        multiprocessing.Process(
            target=reader, args=(tree, mount, names, float(seconds), int(seed) * 1000 + each, results, stop)
        )
        for each in range(int(readers))
    ]
    for each in started:
        each.start()
    print("comparing", file=sys.stderr, flush=True)
    outs = [results.get() for _ in started]
    for each in started:
        each.join()
    print(
        json.dumps(
            {
                "reads": sum(out["reads"] for out in outs),
                "bytes": sum(out["bytes"] for out in outs),
                "errors": [error for out in outs for error in out["errors"]],
                "wrong": [wrong for out in outs for wrong in out["wrong"]],
                "waits": sorted(wait for out in outs for wait in out["waits"])[-20:],
            }
        )
    )


main()
