#!/usr/bin/env python3
"""Writes blobstore images, whole or damaged, from docs/ondisk-blobstore.md and without varve's code: what reads them
proves the document.

    tests/blobstore_image.py FILE [--damage NAME]... [--copy] [--clean|--dirty] [--cluster BYTES] [--size BYTES] [--md-page BYTES]
    tests/blobstore_image.py --list             the damages there are
    tests/blobstore_image.py --corpus DIR       seeds for the fuzz targets, one folder each

The store is of type LVOLSTORE, named lvs0. Its volumes: thick (all clusters), thin (a few), deep (a clone of snap3 on
snap2 on snap1), old (run-length extents instead of an extent table). Each data cluster begins with the text
"VOLUME:CLUSTER" of whoever owns it.
"""
import argparse
import os
import struct
import sys

PAGE = 4096
NONE = 0xFFFFFFFF
THIN, INTERNAL, TABLE, ESNAP = 1, 2, 4, 8
TABLE_OF_CRC = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE_OF_CRC.append(n)


def crc32c(data):
    crc = NONE
    for byte in data:
        crc = crc >> 8 ^ TABLE_OF_CRC[(crc ^ byte) & 255]
    return crc ^ NONE


def sealed(page):
    return bytes(page[:4092]) + struct.pack("<I", crc32c(page[:4092]))


def blob_id(page):
    return 1 << 32 | page


def uuid_text(n):
    return f"00000000-0000-4000-8000-{n:012x}\0".encode()


def descriptor(kind, body):
    return struct.pack("<BI", kind, len(body)) + body


def xattr(name, value, internal=False):
    name = name.encode()
    return descriptor(4 if internal else 2, struct.pack("<HH", len(name), len(value)) + name + value)


def md_page(ident, sequence, descriptors, following=NONE, stamp=0):
    assert len(descriptors) <= 4072
    head = struct.pack("<QII", ident, sequence, stamp)
    return sealed(head + descriptors.ljust(4072, b"\0") + struct.pack("<II", following, 0))


def runs(values):
    """Run-length encoding of cluster numbers, 0 for none."""
    out = []
    for v in values:
        if out and (v == 0 == out[-1][0] or v and out[-1][0] and out[-1][0] + out[-1][1] == v):
            out[-1][1] += 1
        else:
            out.append([v, 1])
    return out


class Blob:
    def __init__(self, page, name, clusters, thin=True, parent=None, read_only=False, table=True, extent_pages=()):
        self.page, self.name, self.clusters, self.thin, self.parent = page, name, clusters, thin, parent
        self.read_only, self.table, self.extent_pages = read_only, table, list(extent_pages)
        self.internal, self.invalid, self.chain = {}, 0, []


class Store:
    def __init__(self, size, cluster, md_page_size, clean):
        self.size, self.cluster, self.stride, self.clean = size, cluster, md_page_size, clean
        self.clusters = size // cluster
        self.md_len = self.clusters
        mask = -(-(5 + -(-self.md_len // 8)) // md_page_size)
        self.starts = [1, 1 + mask, 1 + 2 * mask]
        self.mask_len = mask
        self.md_start = 1 + 3 * mask
        self.first_data = -(-(self.md_start + self.md_len) // (cluster // md_page_size))
        self.next_cluster = self.first_data
        self.pages, self.blobs, self.super_blob = {}, [], 0
        self.used_pages, self.used_clusters, self.used_ids = set(), set(range(self.first_data)), set()
        self.raw = {}  # offset -> bytes, written last: damages
        self.version, self.old_units = 3, False
        self.copy = 0  # page with a copy of the super block

    def take(self, count):
        first = self.next_cluster
        self.next_cluster += count
        assert self.next_cluster <= self.clusters, "image too small"
        return list(range(first, first + count))

    def add(self, blob):
        self.blobs.append(blob)
        return blob

    def lay(self, blob):
        """The pages of a blob, and what they make used."""
        ident = blob_id(blob.page)
        invalid = blob.invalid | (THIN if blob.thin else 0) | (TABLE if blob.table else 0)
        internal = dict(blob.internal)
        if blob.parent is not None:
            internal["SNAP"] = struct.pack("<Q", blob_id(blob.parent))
        if internal:
            invalid |= INTERNAL
        parts = [descriptor(3, struct.pack("<QQQ", invalid, 1 if blob.read_only else 0, 0))]
        if blob.name is not None:
            parts += [xattr("name", blob.name.encode().ljust(64, b"\0")), xattr("uuid", uuid_text(blob.page))]
        parts += [xattr(n, v, True) for n, v in internal.items()]
        parts += [xattr(n, v) for n, v in getattr(blob, "more", {}).items()]
        if blob.table:
            body = struct.pack("<Q", len(blob.clusters))
            for first, count in runs_of_pages(blob.extent_pages):
                body += struct.pack("<II", first, count)
            parts.append(descriptor(5, body))
            for i, page in enumerate(blob.extent_pages):
                if page:
                    part = blob.clusters[i * 512:i * 512 + 512]
                    self.pages[page] = md_page(ident, 0, descriptor(6, struct.pack(f"<I{len(part)}I", i * 512, *part)))
                    self.used_pages.add(page)
        elif blob.clusters:
            parts.append(descriptor(1, b"".join(struct.pack("<II", *r) for r in runs(blob.clusters))))
        contents = [b""]
        for part in parts:
            if len(contents[-1]) + len(part) > 4072:
                contents.append(b"")
            contents[-1] += part
        numbers = [blob.page] + blob.chain[:len(contents) - 1]
        assert len(numbers) == len(contents), f"{blob.name} takes {len(contents)} pages"
        for i, content in enumerate(contents):
            following = numbers[i + 1] if i + 1 < len(numbers) else NONE
            self.pages[numbers[i]] = md_page(ident, i, content, following)
            self.used_pages.add(numbers[i])
        self.used_ids.add(blob.page)
        self.used_clusters.update(c for c in blob.clusters if c)

    def super_block(self):
        units = (0, 0, 0) if self.old_units else (self.size, 512, self.stride)
        ids = (self.starts[2], self.mask_len) if self.version == 3 else (0, 0)
        head = struct.pack("<8sIIIQIIIIIII16sIIQII", b"SPDKBLOB", self.version, PAGE, 1 if self.clean else 0,
                           blob_id(self.super_blob), self.cluster, self.starts[0], self.mask_len, self.starts[1],
                           self.mask_len, self.md_start, self.md_len, b"LVOLSTORE", *ids, *units)
        page = bytearray(head.ljust(PAGE, b"\0"))
        if self.copy:
            page[384:512] = self.extension(9)
            page[508:512] = struct.pack("<I", crc32c(page[:508]))
        return sealed(page)

    def extension(self, sequence):
        return struct.pack("<8sHHI16sQIHHIII", b"VARVEEXT", 1, 128, 0, b"uuid of a store!", sequence, 0, 0, 0,
                           1 if sequence else 0, 0, self.copy).ljust(128, b"\0")

    def super_copy(self):
        """Section 7.5."""
        clean, self.clean = self.clean, False
        sector = bytearray(self.super_block()[:512])
        self.clean = clean
        sector[384:512] = self.extension(0)
        head = struct.pack("<8sI12xHHIQ16s8x", b"VARVESUP", NONE, 1, 512, self.copy, 9, b"uuid of a store!")
        page = (head + sector).ljust(4088, b"\0") + struct.pack("<I", NONE)
        return page + struct.pack("<I", crc32c(page) ^ NONE)

    def mask(self, kind, length, bits):
        out = bytearray(self.mask_len * self.stride)
        out[:5] = struct.pack("<BI", kind, length)
        for bit in bits:
            out[5 + bit // 8] |= 1 << bit % 8
        return bytes(out)

    def md_offset(self, page):
        return (self.md_start + page) * self.stride

    def write(self, path):
        with open(path, "wb") as f:
            f.truncate(self.size)
            for offset, data in self.everything():
                f.seek(offset)
                f.write(data)

    def everything(self):
        yield 0, self.super_block()
        if self.copy:
            yield self.md_offset(self.copy), self.super_copy()
        if self.clean or self.copy:
            yield self.starts[0] * self.stride, self.mask(0, self.md_len, self.used_pages)
            yield self.starts[1] * self.stride, self.mask(1, self.clusters, self.used_clusters)
            if self.version == 3:
                yield self.starts[2] * self.stride, self.mask(2, self.md_len, self.used_ids)
        for number, page in self.pages.items():
            yield self.md_offset(number), page
        for blob in self.blobs:
            for i, c in enumerate(blob.clusters):
                if c:
                    yield c * self.cluster, f"{blob.name}:{i}".encode()
        yield from self.raw.items()


def runs_of_pages(pages):
    out = []
    for p in pages:
        if p == 0 and out and out[-1][0] == 0:
            out[-1][1] += 1
        else:
            out.append([p, 1])
    return out


def volumes(size, cluster, md_page_size, clean):
    s = Store(size, cluster, md_page_size, clean)
    root = s.add(Blob(0, "lvs0", [], thin=False))
    root.name = "lvs0"
    s.add(Blob(1, "thick", s.take(6), thin=False, extent_pages=[2]))
    thin = s.add(Blob(3, "thin", [0] * 1500, extent_pages=[4, 0, 5]))
    thin.clusters[3:5] = s.take(2)
    thin.clusters[1030] = s.take(1)[0]
    below = None
    for i, page in enumerate((6, 8, 10)):
        snap = s.add(Blob(page, f"snap{i + 1}", [0] * 20, parent=below, read_only=True, extent_pages=[page + 1]))
        snap.clusters[i * 3:i * 3 + 2] = s.take(2)
        below = page
    deep = s.add(Blob(12, "deep", [0] * 20, parent=below, extent_pages=[13]))
    deep.clusters[19] = s.take(1)[0]
    old = s.add(Blob(14, "old", [0, 0] + s.take(3) + [0], table=False))
    old.chain = [15]
    old.more = {"note": b"x" * 3000, "more": b"y" * 2000}
    return s


def find(s, name):
    return next(b for b in s.blobs if b.name == name)


def poke(s, page, offset, data, seal=True):
    p = bytearray(s.pages[page])
    p[offset:offset + len(data)] = data
    s.pages[page] = sealed(p) if seal else bytes(p)


def damage_shared_cluster(s):
    thin, thick = find(s, "thin"), find(s, "thick")
    thin.clusters[7] = thick.clusters[0]


AFTER = {}  # damages of pages that are laid out already


def after(f):
    AFTER[f.__name__[len("after_"):].replace("_", "-")] = f
    return f


@after
def after_bad_extent_page(s):
    poke(s, 4, 100, b"\xff", seal=False)


@after
def after_flipped_bit(s):
    poke(s, 4, 40, bytes([s.pages[4][40] ^ 8]), seal=False)


@after
def after_cleared_id_bit(s):
    s.used_ids.discard(1)


@after
def after_bad_chain_page(s):
    poke(s, 15, 100, b"\xff", seal=False)


@after
def after_bad_root(s):
    poke(s, 12, 100, b"\xff", seal=False)


@after
def after_stale_chain_page(s):
    poke(s, 15, 12, b"\x07")


@after
def after_chain_of_another(s):
    poke(s, 15, 0, struct.pack("<Q", blob_id(99)))


@after
def after_missing_parent(s):
    del s.pages[8]
    s.used_ids.discard(8)


@after
def after_leaked_cluster(s):
    s.used_clusters.add(s.next_cluster)


@after
def after_leaked_page(s):
    s.used_pages.add(20)


@after
def after_unmarked_cluster(s):
    s.used_clusters.discard(find(s, "thick").clusters[2])


@after
def after_bad_super(s):
    s.raw[100] = b"\x03"


@after
def after_flipped_super(s):
    s.raw[100] = b"\x01"


@after
def after_flipped_bits_super(s):
    for at, bit in ((3, 1), (30, 8), (49, 2), (86, 4), (700, 1)):
        s.raw[at] = bytes([s.super_block()[at] ^ bit])


@after
def after_super_lost(s):
    s.raw[0] = bytes(PAGE)


@after
def after_super_rubbish(s):
    s.raw[0] = bytes(n * 37 + n // 251 & 255 for n in range(PAGE))


@after
def after_lost_front(s):
    """Super block and masks."""
    s.raw[0] = bytes(s.md_start * s.stride)


@after
def after_bad_copy(s):
    if s.copy:
        s.raw[s.md_offset(s.copy) + 70] = b"\xff"


@after
def after_torn_super(s):
    dirty = not s.clean
    s.clean = dirty
    s.raw[4092] = s.super_block()[4092:]
    s.clean = not dirty


@after
def after_bad_mask(s):
    s.raw[s.starts[1] * s.stride] = b"\x09"


@after
def after_endless_chain(s):
    poke(s, 15, 4088, struct.pack("<I", 14))


@after
def after_cluster_outside(s):
    poke(s, 2, 25, struct.pack("<I", s.clusters))


@after
def after_unknown_descriptor(s):
    page = s.pages[1]
    end = 16
    while page[end]:
        end += 5 + struct.unpack_from("<I", page, end + 1)[0]
    poke(s, 1, end, descriptor(77, b"future"))


BEFORE = {"shared-cluster": damage_shared_cluster}


def no_name(s):
    find(s, "thick").name = None


def same_names(s):
    find(s, "thick").name = "thin"


def snapshot_in_progress(s):
    """snap3 carries the mark, deep does not point to it yet and still has the clusters."""
    snap, deep = find(s, "snap3"), find(s, "deep")
    snap.internal["SNAPTMP"] = struct.pack("<Q", blob_id(12))
    snap.read_only = False
    deep.clusters = list(snap.clusters)
    deep.extent_pages = list(snap.extent_pages)
    deep.parent = snap.parent


def version_1(s):
    s.version, s.old_units = 1, True


BEFORE |= {"no-name": no_name, "same-names": same_names, "snapshot-in-progress": snapshot_in_progress,
           "version-1": version_1}


def make(args):
    s = volumes(args.size, args.cluster, args.md_page, args.clean)
    for name in args.damage:
        if name in BEFORE:
            BEFORE[name](s)
    for blob in s.blobs:
        s.lay(blob)
    if getattr(args, "copy", False):
        s.copy = s.md_len - 1
        s.used_pages.add(s.copy)
    for name in args.damage:
        if name in AFTER:
            AFTER[name](s)
    return s


def write_corpus(folder, args):
    def seed(target, name, data):
        os.makedirs(f"{folder}/{target}", exist_ok=True)
        with open(f"{folder}/{target}/{name}", "wb") as f:
            f.write(data.rstrip(b"\0"))

    size_code = (args.size - 1).bit_length() - 20
    for version in ("", "version-1"):
        args.damage = [version]
        s = make(args)
        for flags in (0, 64):
            seed("blob_super_fuzz", f"super{version}-{flags}", bytes([flags | size_code]) + s.super_block())
    extension = struct.pack("<8sHHI16sQIHHI", b"VARVEEXT", 1, 128, 0, b"u" * 16, 3, 40, 2, 10, 7)
    page = bytearray(s.super_block())
    page[384:384 + len(extension)] = extension
    page[508:512] = struct.pack("<I", crc32c(page[:508]))
    seed("blob_super_fuzz", "super-extended", bytes([96 | size_code]) + sealed(page))
    seed("blob_super_fuzz", "super-torn", bytes([32 | size_code]) + bytes(page))
    args.copy = True
    seed("blob_super_fuzz", "super-copy", bytes([128 | size_code]) + make(args).super_copy())
    args.copy = False
    seed("blob_super_fuzz", "mask", bytes([10]) + struct.pack("<BI", 1, 50) + b"\x55" * 7)
    args.damage = []
    s = make(args)
    for i, steps in enumerate((b"\x01\x00\x04\x00\x00\x05", b"\x00\x01\x03\x2d\x00\x07\x00\x00\x00", b"\x01\x03\x04\x00\x00\x02",
                               b"\x01\x05\x0d\x00\x00\x0c\x63\x00\x00\x00", b"\x01\x02\x0d\x10\x00\xff",
                               b"\x00\x01\x0d\xf8\x0f\x0c\x00\x00\x00", b"\x01\x04\x02\x06\x00\xff\x04\x01\x00\x00\x09", b"\x01\x06\x00\x00\x00\xff\x00",
                               b"\x00\x06\x00\x00\x00\x01\xa5\x07\x28\x00\x00", b"\x01\x06\x00\x00\x00\xff\x5a\x02\x31\x64\x00\x03")):
        seed("blob_check_fuzz", f"steps-{i}", steps)
    for blob in s.blobs:
        for how in (1, 3):
            chain = b"".join(s.pages[p] for p in [blob.page] + blob.chain)
            seed("blob_metadata_fuzz", f"{blob.name}-{how}", bytes([how]) + chain)
    seed("blob_metadata_fuzz", "extents", b"\x01" + s.pages[4])
    header = struct.pack("<QII8xHHIQ16sI4xIIII", 0x5742444556524156, NONE, 0, 1, 2, 1, 5, b"u" * 16, 900, 3, 1, 4, 2)
    seed("blob_metadata_fuzz", "double-write", b"\x00" + header.ljust(4088, b"\0") + struct.pack("<II", NONE, 0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?")
    parser.add_argument("--damage", action="append", default=[], metavar="NAME")
    parser.add_argument("--clean", action="store_true", default=True)
    parser.add_argument("--dirty", dest="clean", action="store_false")
    parser.add_argument("--cluster", type=int, default=1 << 20)
    parser.add_argument("--size", type=int, default=64 << 20)
    parser.add_argument("--md-page", type=int, default=PAGE)
    parser.add_argument("--copy", action="store_true", help="with a copy of the super block, as varve makes one")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--corpus", metavar="DIR")
    args = parser.parse_args()
    if args.list:
        print("\n".join(sorted([*BEFORE, *AFTER])))
        return 0
    unknown = [d for d in args.damage if d not in BEFORE and d not in AFTER]
    if unknown or not (args.file or args.corpus):
        parser.error(f"no such damage: {unknown[0]}" if unknown else "name a file")
    if args.corpus:
        write_corpus(args.corpus, args)
    else:
        make(args).write(args.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
