"""Generate valid pickle programs at random, operation by operation, as an attacker would write them.

A program keeps objects in the memo and changes them after it has passed them on; it calls the names that a reader
allows with odd arguments, sets the state of whatever it has, and builds containers that are shared or hold themselves.
Every program leaves exactly one object, so that nothing but what it does can be the reason to refuse it.
"""
import struct

LONG = b"a long text " * 40


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return b"X" + struct.pack("<I", len(s)) + s


def number(n):
    if 0 <= n < 256:
        return b"K" + bytes([n])
    if -2**31 <= n < 2**31:
        return b"J" + struct.pack("<i", n)
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(module, name): return f"c{module}\n{name}\n".encode()


class Programs:
    """Writes programs. `names`: the (module, name) pairs that the reader allows. `calls`: {name: a function of this
    generator that returns the operations for plausible arguments of a call}."""

    def __init__(self, rng, names, calls=None, keys=("w", "data", "labels")):
        self.rng, self.names, self.calls, self.keys = rng, list(names), calls or {}, keys
        self.memo = {"list": [], "dict": [], "tuple": [], "name": [], "object": [], "scalar": []}
        self.next, self.budget = 0, rng.choice([5, 20, 60, 200])

    # ------------------------------------------------------------------ each returns operations that push one object

    def put(self, kind, code):
        """Keep what `code` leaves on the stack in the memo."""
        index, self.next = self.next, self.next + 1
        self.memo[kind].append(index)
        return code + (b"q" + bytes([index]) if index < 256 else b"r" + struct.pack("<I", index))

    def get(self, kind):
        index = self.rng.choice(self.memo[kind])
        return b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index)

    def integer(self):
        rng = self.rng
        return number(rng.choice([0, 1, 1, 2, 3, 9, 10, 255, 256, 3072, 2**31, 2**40, 2**63, 2**64, -1, -3, 2**600,
                                  rng.randrange(100)]))

    def key(self):
        rng = self.rng
        return rng.choice([text(rng.choice(self.keys)), text(rng.choice(["", "a", "module.w", "ä", LONG])), b"N",
                           number(rng.randrange(10**6)), b"G\x3f" + rng.randbytes(7), b"C\x01a", b"\x88",
                           rng.choice([b")", self.integer(), b"N", b"N"])])

    def scalar(self):
        rng = self.rng
        return rng.choice([self.integer, self.key, lambda: b"N", lambda: rng.choice([b"\x88", b"\x89"]),
                           lambda: text(LONG), lambda: b"U\x03abc", lambda: b"B\x04\0\0\0\xff\0\0\1",
                           lambda: b"G\x7f\xf8" + bytes(6), lambda: b"F1e400\n", lambda: b"I12\n", lambda: b"L12L\n",
                           lambda: b"S'a\\x00'\n", lambda: b"V\\u1234\n", lambda: b"(l", lambda: b"(d"])()

    def values(self, depth, most=6):
        return b"".join(self.value(depth + 1) for _ in range(self.rng.randrange(most)))

    def list(self, depth):
        start, rng = self.put("list", b"]"), self.rng  # in the memo before it is full, so that it can hold itself
        if rng.random() < 0.3:
            return start + b"".join(self.value(depth + 1) + b"a" for _ in range(rng.randrange(3)))
        return start + b"(" + self.values(depth, rng.choice([3, 6, 12])) + b"e"

    def dict(self, depth):
        start = self.put("dict", b"}")
        pairs = [self.key() + self.value(depth + 1) for _ in range(self.rng.randrange(5))]
        return start + (b"(" + b"".join(pairs) + b"u" if self.rng.random() < 0.7 else b"".join(p + b"s" for p in pairs))

    def tuple(self, depth):
        n = self.rng.randrange(5)
        parts = b"".join(self.value(depth + 1) for _ in range(n))
        return self.put("tuple", parts + [b")", b"\x85", b"\x86", b"\x87"][n] if n < 4 else b"(" + parts + b"t")

    def name(self):
        if self.memo["name"] and self.rng.random() < 0.5:
            return self.get("name")
        return self.put("name", named(*self.rng.choice(self.names)))

    def axes(self):
        """A size or a stride: usually a tuple of small numbers, sometimes a list that can be changed later."""
        rng = self.rng
        length = rng.choice([0, 1, 1, 2, 4, 70])
        parts = b"".join(number(rng.choice([0, 1, 1, 1, 2, 3, 8, 2**40])) for _ in range(length))
        return b"(" + parts + b"t" if rng.random() < 0.7 else self.put("list", b"]") + b"(" + parts + b"e"

    def call(self, depth):
        rng = self.rng
        if self.calls and rng.random() < 0.6:
            return self.put("object", rng.choice(list(self.calls.values()))(self))
        name = self.name()  # before the arguments: the order in which things enter the memo is that of the operations
        arguments = rng.choice([self.tuple] * 5 + [self.list, self.value])(depth + 1)
        if rng.random() < 0.3 and self.memo["tuple"]:
            name, arguments = name + arguments + b"0", self.get("tuple")
        return self.put("object", name + arguments + rng.choice([b"R", b"R", b"R", b"\x81"]))

    def value(self, depth=0):
        rng = self.rng
        self.budget -= 1
        if self.budget < 0 or depth > 12:
            return self.scalar()
        made = rng.choice([self.scalar, self.scalar, self.again, self.again, lambda: self.list(depth),
                           lambda: self.dict(depth), lambda: self.tuple(depth), self.name, lambda: self.call(depth),
                           lambda: self.call(depth), lambda: self.persistent(depth)])()
        while rng.random() < 0.25 and self.budget > 0:
            made += self.change(depth)
        return made

    def again(self):
        kinds = [kind for kind, found in self.memo.items() if found]
        return self.get(self.rng.choice(kinds)) if kinds else self.scalar()

    def persistent(self, depth):
        """A reference to data outside the pickle. Readers of pickles that hold all their data refuse it."""
        return self.tuple(depth) + b"Q" if self.rng.random() < 0.05 else self.scalar()

    # --------------------------------------------------------------- each returns operations that change no stack

    def change(self, depth):
        """Change something that was made before, or do something else that leaves the stack as it is."""
        rng, memo = self.rng, self.memo
        kind = rng.choice(["list", "dict", "object", "list", "dict", "name", "none", "pop", "many"])
        if kind == "list" and memo["list"]:
            return self.get("list") + rng.choice([lambda: self.value(depth + 1) + b"a",
                                                  lambda: number(0) + self.value(depth + 1) + b"s",
                                                  lambda: b"(" + self.values(depth) + b"e"])() + b"0"
        if kind == "dict" and memo["dict"]:
            return self.get("dict") + self.key() + self.value(depth + 1) + b"s0"
        if kind in ("object", "name") and memo[kind]:
            return self.get(kind) + self.value(depth + 1) + b"b0"
        if kind == "many" and memo["tuple"] and memo["name"]:
            again = (self.get("name") + self.get(rng.choice(["tuple", "list"] if memo["list"] else ["tuple"]))
                     + rng.choice([b"", b"\x85"]) + rng.choice([b"R", b"\x81"]) + b"0")
            return again * rng.choice([2, 50, 2000, 20_000])
        if kind == "pop":
            return rng.choice([lambda: self.value(depth + 1) + b"0", lambda: b"(" + self.values(depth) + b"1",
                               lambda: b"N200"])()
        return b""

    def program(self, first=b""):
        """Return a whole program, which begins with `first` (operations that leave one object, or none)."""
        body = first or self.value()
        for _ in range(self.rng.randrange(4)):
            body += self.change(0)
        return b"\x80" + bytes([self.rng.choice([2, 2, 3, 4])]) + body + b"."
